#include "worker/device_options.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

absl::Status Bad(absl::string_view part, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("--devices: '", part, "': ", why, "; write cpu, cpu:48MiB or gpu0:20GiB"));
}

}  // namespace

absl::StatusOr<std::vector<DeviceOption>> ParseDevices(absl::string_view text) {
  std::vector<DeviceOption> devices;
  int cpus = 0;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    DeviceOption device;
    std::pair<absl::string_view, absl::string_view> halves =
        absl::StrSplit(part, absl::MaxSplits(':', 1));
    absl::string_view number = halves.first;
    int index = 0;
    if (halves.first == "cpu") {
      device.id = DeviceId(cpus == 0 ? "cpu" : absl::StrCat("cpu#", cpus));
      ++cpus;
    } else if (absl::ConsumePrefix(&number, "gpu") && absl::SimpleAtoi(number, &index) &&
               index >= 0) {
      device.kind = DeviceKind::kGpu;
      device.id = DeviceId(absl::StrCat("gpu", index));
    } else {
      return Bad(part, "unknown device");
    }
    if (part.find(':') != absl::string_view::npos) {
      absl::StatusOr<Bytes> budget = ParseBytes(halves.second);
      if (!budget.ok()) return Bad(part, budget.status().message());
      if (budget->count() <= 0) return Bad(part, "the budget must be above zero");
      device.budget = *budget;
    }
    for (const DeviceOption& other : devices) {
      if (other.id == device.id) return Bad(part, "appears twice");
    }
    devices.push_back(std::move(device));
  }
  return devices;
}

}  // namespace millrace
