#include "tools/hardware_flag.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/plan_json.h"
#include "proto/status_macros.h"
#include "tools/budget_flags.h"
#include "tools/cli_io.h"

namespace millrace {
namespace {

constexpr absl::string_view kFlag = "--hardware";
constexpr int kMostCards = 16;

template <typename Profile>
std::string Names(absl::Span<const Profile> profiles) {
  return absl::StrJoin(profiles, ", ",
                       [](std::string* out, const Profile& p) { absl::StrAppend(out, p.name); });
}

absl::Status BadPart(absl::string_view part, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(kFlag, ": '", part, "' ", why));
}

// "2x rtx-3090 20GiB" in its three pieces.
struct Part {
  std::string text, name;
  std::optional<int> count;
  std::optional<Bytes> size;
};

absl::StatusOr<Part> ReadPart(absl::string_view text) {
  Part part;
  part.text = std::string(absl::StripAsciiWhitespace(text));
  const std::string lower = absl::AsciiStrToLower(part.text);
  absl::string_view rest = lower;
  const size_t digits = std::min(rest.find_first_not_of("0123456789"), rest.size());
  if (digits > 0 && digits < rest.size() && rest[digits] == 'x') {
    int count = 0;
    if (!absl::SimpleAtoi(rest.substr(0, digits), &count) || count < 1 || count > kMostCards) {
      return BadPart(part.text, absl::StrCat("is not 1 to ", kMostCards, " cards"));
    }
    part.count = count;
    rest = absl::StripLeadingAsciiWhitespace(rest.substr(digits + 1));
  }
  const size_t space = std::min(rest.find_first_of(" :"), rest.size());
  part.name = std::string(rest.substr(0, space));
  if (space < rest.size()) {
    MILLRACE_ASSIGN_OR_RETURN(part.size, ParseSize(kFlag, rest.substr(space + 1)));
  }
  if (!part.name.empty()) return part;
  return BadPart(part.text, "names nothing; e.g. '2x rtx-3090, ddr5-desktop 64GiB, pcie4x16'");
}

// The machine's parts, put together when all are read: a slot counts for all cards.
class Builder {
 public:
  absl::Status Add(const Part& part) {
    if (const GpuProfile* gpu = FindGpuProfile(part.name)) return AddCards(*gpu, part);
    const HostProfile* host = FindHostProfile(part.name);
    const DiskProfile* disk = FindDiskProfile(part.name);
    absl::string_view slot = part.name;
    if (!host && !disk && !absl::ConsumePrefix(&slot, "pcie")) return NoSuchPart(part);
    if (part.count.has_value()) return BadPart(part.text, "is not a card; only cards are counted");
    if (host != nullptr) return SetHost(*host, part);
    if (part.size.has_value()) return BadPart(part.text, "has no size; cards and hosts have");
    if (disk != nullptr) return SetOnce(disk, part, disk_);
    if (slot_.has_value()) return BadPart(part.text, "is a second slot; all cards have the same");
    absl::StatusOr<PcieSlot> read = ParsePcieSlot(slot);
    if (!read.ok()) return Annotate(read.status(), absl::StrCat(kFlag, ": '", part.text, "'"));
    slot_ = *read;
    return absl::OkStatus();
  }

  absl::StatusOr<DescribedMachine> Finish() const {
    if (host_ == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(kFlag, ": no host; add one of ", Names(HostProfiles()),
                       ", with its memory, e.g. 'ddr5-desktop 64GiB'"));
    }
    DescribedMachine out;
    out.host = DescribedHost(*host_, memory_);
    Note(out, absl::StrCat(host_->name, " ", FormatBytes(memory_)), host_->source);
    for (const auto& [profile, budget] : cards_)
      MILLRACE_RETURN_IF_ERROR(Plug(*profile, budget, out));
    if (disk_ != nullptr) {
      out.host.disk_bandwidth = disk_->read;
      Note(out, disk_->name, disk_->source);
    }
    if (cards_.empty()) out.host.devices.push_back(DescribedCpu(out.host));
    return out;
  }

 private:
  absl::Status AddCards(const GpuProfile& gpu, const Part& part) {
    for (int i = 0; i < part.count.value_or(1); ++i) cards_.emplace_back(&gpu, part.size);
    if (cards_.size() <= kMostCards) return absl::OkStatus();
    return BadPart(part.text, absl::StrCat("is one card too many: at most ", kMostCards));
  }

  absl::Status SetHost(const HostProfile& host, const Part& part) {
    if (!part.size.has_value()) {
      return BadPart(part.text, absl::StrCat("lacks its memory, e.g. '", host.name, " 64GiB'"));
    }
    memory_ = *part.size;
    return SetOnce(&host, part, host_);
  }

  template <typename Profile>
  static absl::Status SetOnce(const Profile* found, const Part& part, const Profile*& field) {
    if (field != nullptr) return BadPart(part.text, "is the second of its kind");
    field = found;
    return absl::OkStatus();
  }

  static absl::Status NoSuchPart(const Part& part) {
    return BadPart(part.text,
                   absl::StrCat("is not known; cards: ", Names(GpuProfiles()),
                                "; hosts: ", Names(HostProfiles()), "; links: pcie3x4 to pcie5x16",
                                "; disks: ", Names(DiskProfiles())));
  }

  static void Note(DescribedMachine& out, absl::string_view what, absl::string_view source) {
    out.notes.push_back(absl::StrCat(what, ": ", source));
  }

  absl::Status Plug(const GpuProfile& profile, std::optional<Bytes> budget,
                    DescribedMachine& out) const {
    const int index = static_cast<int>(out.host.devices.size());
    DeviceSpec gpu = DescribedGpu(profile, index, slot_.value_or(PcieSlot{profile.pcie, 16}));
    if (budget.has_value() && *budget > gpu.memory_total) {
      return BadPart(profile.name,
                     absl::StrCat("has no more than ", FormatBytes(gpu.memory_total)));
    }
    gpu.budget = budget.value_or(gpu.budget);
    Note(out,
         absl::StrCat(gpu.id.value(), " ", profile.name, ", link ",
                      FormatBandwidth(gpu.h2d_bandwidth),
                      slot_ ? " (" + PcieSlotName(*slot_) + ")" : ""),
         profile.source);
    out.host.devices.push_back(std::move(gpu));
    return absl::OkStatus();
  }

  const HostProfile* host_ = nullptr;
  const DiskProfile* disk_ = nullptr;
  Bytes memory_;
  std::optional<PcieSlot> slot_;
  std::vector<std::pair<const GpuProfile*, std::optional<Bytes>>> cards_;  // and their budgets
};

}  // namespace

absl::StatusOr<DescribedMachine> ParseHardware(absl::string_view text) {
  Builder builder;
  for (absl::string_view piece : absl::StrSplit(text, ',')) {
    MILLRACE_ASSIGN_OR_RETURN(const Part part, ReadPart(piece));
    MILLRACE_RETURN_IF_ERROR(builder.Add(part));
  }
  return builder.Finish();
}

absl::StatusOr<DescribedMachine> ReadHardwareFile(const std::string& path) {
  constexpr absl::string_view kFileFlag = "--hardware-file";
  MILLRACE_ASSIGN_OR_RETURN(const std::string json, ReadTextFile(kFileFlag, path));
  absl::StatusOr<HostSpec> host = HostFromJson(json);
  if (!host.ok()) return Annotate(host.status(), absl::StrCat(kFileFlag, ": '", path, "'"));
  return DescribedMachine{*std::move(host), {absl::StrCat(path, ": as it was probed there")}};
}

absl::StatusOr<const GpuProfile*> ParseGpuName(absl::string_view flag, absl::string_view name) {
  if (const GpuProfile* gpu = FindGpuProfile(name)) return gpu;
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": no card '", name, "'; there is ", Names(GpuProfiles())));
}

std::string RenderHardwareProfiles() {
  std::string out = "cards (1 or `2x NAME`; a size after the name is what may be used of it)\n";
  for (const GpuProfile& p : GpuProfiles()) {
    absl::StrAppendFormat(&out, "  %-17s %s, read %s, products %.0f TFLOP/s, PCIe %d\n    %s\n",
                          p.name, FormatBytes(p.memory), FormatBandwidth(p.read), p.flops / 1e12,
                          p.pcie, p.source);
  }
  absl::StrAppend(&out, "hosts (`NAME 64GiB`)\n");
  for (const HostProfile& p : HostProfiles()) {
    absl::StrAppendFormat(&out, "  %-17s %s, read %s, products %.1f TFLOP/s\n    %s\n", p.name,
                          p.title, FormatBandwidth(p.read), p.flops / 1e12, p.source);
  }
  absl::StrAppendFormat(&out, "links: lanes x %.2f, measured at 5x16 on the reference machine\n",
                        kSustainedLink);
  for (int generation : {3, 4, 5}) {
    for (int lanes : {4, 8, 16}) {
      const PcieSlot slot = {generation, lanes};
      absl::StrAppendFormat(&out, "  %-17s %s\n", PcieSlotName(slot),
                            FormatBandwidth(PcieBandwidth(slot)));
    }
  }
  absl::StrAppend(&out, "disks (without one, no weights are left on disk)\n");
  for (const DiskProfile& p : DiskProfiles()) {
    absl::StrAppendFormat(&out, "  %-17s %s; %s\n", p.name, FormatBandwidth(p.read), p.source);
  }
  return out;
}

}  // namespace millrace
