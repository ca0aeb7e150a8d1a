#include "tools/what_if_flag.h"

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/status_macros.h"
#include "tools/budget_flags.h"
#include "tools/hardware_flag.h"

namespace millrace {
namespace {

constexpr absl::string_view kFlag = "--what-if";

// "80GB/s", "80"
absl::StatusOr<Bandwidth> ParseBandwidth(absl::string_view part, absl::string_view text) {
  double gb = 0;
  absl::string_view number = text;
  absl::ConsumeSuffix(&number, "gb/s");
  if (absl::SimpleAtod(number, &gb) && gb > 0 && gb < 1e6) return Bandwidth::GBPerSecond(gb);
  return absl::InvalidArgumentError(
      absl::StrCat(kFlag, ": '", part, "': '", text, "' is not a bandwidth, e.g. 80GB/s"));
}

absl::Status ReadPart(absl::string_view part, const std::string& key, const std::string& value,
                      MachineChange& change) {
  if (key == "add") {
    MILLRACE_ASSIGN_OR_RETURN(const GpuProfile* gpu, ParseGpuName(kFlag, value));
    change.more_gpus.push_back(gpu);
  } else if (key == "pcie") {
    absl::StatusOr<PcieSlot> slot = ParsePcieSlot(value);
    if (!slot.ok()) return Annotate(slot.status(), absl::StrCat(kFlag, ": '", part, "'"));
    change.link = PcieBandwidth(*slot);
  } else if (key == "dram") {
    MILLRACE_ASSIGN_OR_RETURN(change.dram, ParseBandwidth(part, value));
  } else if (key == "disk") {
    const DiskProfile* disk = FindDiskProfile(value);
    if (disk != nullptr) {
      change.disk = disk->read;
    } else {
      MILLRACE_ASSIGN_OR_RETURN(change.disk, ParseBandwidth(part, value));
    }
  } else {
    MILLRACE_ASSIGN_OR_RETURN(const Bytes budget, ParseSize(kFlag, value));
    change.budgets.emplace_back(key, budget);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MachineChange> ParseWhatIf(absl::string_view text) {
  MachineChange change;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    part = absl::StripAsciiWhitespace(part);
    const std::pair<std::string, std::string> named =
        absl::StrSplit(absl::AsciiStrToLower(part), absl::MaxSplits('=', 1));
    if (named.first.empty() || named.second.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(kFlag, ": '", part,
                       "' is not NAME=VALUE; there is gpu0=24GiB (any device, or gpu), "
                       "host=64GiB, pcie=4x8, dram=80GB/s, disk=3GB/s, add=rtx-3090"));
    }
    MILLRACE_RETURN_IF_ERROR(ReadPart(part, named.first, named.second, change));
  }
  return change;
}

}  // namespace millrace
