#include "planner/pins.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace millrace {
namespace {

// True when the pin's target names this device: "gpu0", "worker-1", "worker-1/cpu".
bool Names(const std::string& target, const HostSpec& host, const DeviceSpec& device) {
  return target == device.id.value() || target == host.worker.value() ||
         target == absl::StrCat(host.worker.value(), "/", device.id.value());
}

}  // namespace

std::vector<DeviceRef> AllDevices(const ClusterSpec& cluster) {
  std::vector<DeviceRef> all;
  for (size_t h = 0; h < cluster.hosts.size(); ++h) {
    for (size_t d = 0; d < cluster.hosts[h].devices.size(); ++d) {
      all.push_back({static_cast<int>(h), static_cast<int>(d)});
    }
  }
  return all;
}

bool GlobMatches(absl::string_view pattern, absl::string_view text) {
  size_t p = 0, t = 0, star = absl::string_view::npos, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = t;
    } else if (star != absl::string_view::npos) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

absl::StatusOr<Pin> ParsePin(absl::string_view text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (parts.first.empty() || parts.second.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "pin '", text, "': write BLOCKS=TARGET, e.g. blk.*.ffn=host or blk.0.*=worker-1/cpu"));
  }
  return Pin{parts.first, parts.second};
}

absl::StatusOr<ResolvedPins> ResolvePins(const PlacementProblem& problem) {
  const std::vector<Block> blocks = BlocksOf(problem.model);
  const std::vector<DeviceRef> devices = AllDevices(problem.cluster);
  ResolvedPins pins;
  pins.allowed.assign(blocks.size(), std::vector<bool>(devices.size(), true));
  pins.home.assign(blocks.size(), PinnedHome::kAny);
  for (const Pin& pin : problem.pins) {
    const std::string shown = absl::StrCat("pin '", pin.pattern, "=", pin.target, "'");
    std::vector<bool> named(devices.size(), false);
    bool names_any = false;
    for (size_t d = 0; d < devices.size(); ++d) {
      const HostSpec& host = problem.cluster.hosts[devices[d].host];
      named[d] = Names(pin.target, host, host.devices[devices[d].device]);
      names_any |= named[d];
    }
    const bool home = pin.target == "host" || pin.target == "device";
    if (!home && !names_any) {
      return absl::InvalidArgumentError(absl::StrCat(
          shown, " names no worker or device: use host, device, a worker, a device or worker/device"));
    }
    bool matched = false;
    for (size_t b = 0; b < blocks.size(); ++b) {
      if (!GlobMatches(pin.pattern, BlockName(blocks[b]))) continue;
      matched = true;
      if (home) {
        pins.home[b] = pin.target == "host" ? PinnedHome::kHost : PinnedHome::kDevice;
        continue;
      }
      pins.any_device = true;
      for (size_t d = 0; d < devices.size(); ++d) {
        pins.allowed[b][d] = pins.allowed[b][d] && named[d];
      }
    }
    if (!matched) {
      return absl::InvalidArgumentError(absl::StrCat(
          shown, " matches no block: blocks are embed, blk.N.attn, blk.N.ffn and head"));
    }
  }
  return pins;
}

}  // namespace millrace
