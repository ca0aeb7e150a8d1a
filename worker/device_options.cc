#include "worker/device_options.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

absl::Status Bad(absl::string_view part, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("--devices: '", part, "': ", why,
                   "; write auto, cpu, cpu:48MiB, gpu0 or gpu0:20GiB,gpu0:20GiB"));
}

// "cpu" or "gpu3", without its budget; false for anything else.
bool ReadKind(absl::string_view text, DeviceOption& device) {
  if (text == "cpu") return true;
  device.kind = DeviceKind::kGpu;
  return absl::ConsumePrefix(&text, "gpu") && !text.empty() && absl::ascii_isdigit(text[0]) &&
         absl::SimpleAtoi(text, &device.index);
}

}  // namespace

absl::StatusOr<std::vector<DeviceOption>> ParseDevices(absl::string_view text) {
  std::vector<DeviceOption> devices;
  if (text == "auto") return devices;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    DeviceOption device;
    const std::pair<absl::string_view, absl::string_view> halves =
        absl::StrSplit(part, absl::MaxSplits(':', 1));
    if (halves.first == "auto") return Bad(part, "auto stands alone and has no budget");
    if (!ReadKind(halves.first, device)) return Bad(part, "unknown device");
    const int before = static_cast<int>(
        std::count_if(devices.begin(), devices.end(), [&](const DeviceOption& other) {
          return other.kind == device.kind && other.index == device.index;
        }));
    const std::string name =
        device.kind == DeviceKind::kCpu ? "cpu" : absl::StrCat("gpu", device.index);
    device.id = DeviceId(before == 0 ? name : absl::StrCat(name, "#", before));
    if (part.find(':') != absl::string_view::npos) {
      absl::StatusOr<Bytes> budget = ParseBytes(halves.second);
      if (!budget.ok()) return Bad(part, budget.status().message());
      if (budget->count() <= 0) return Bad(part, "the budget must be above zero");
      device.budget = *budget;
    }
    devices.push_back(std::move(device));
  }
  return devices;
}

std::vector<DeviceOption> AutoDevices(int gpus) {
  std::vector<DeviceOption> devices;
  for (int i = 0; i < gpus; ++i) {
    devices.push_back({DeviceKind::kGpu, i, DeviceId(absl::StrCat("gpu", i)), std::nullopt});
  }
  if (devices.empty()) devices.push_back({DeviceKind::kCpu, 0, DeviceId("cpu"), std::nullopt});
  return devices;
}

}  // namespace millrace
