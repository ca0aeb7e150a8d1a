// --hardware, --hardware-file: a machine in words or from a file, instead of this one.
#ifndef MILLRACE_TOOLS_HARDWARE_FLAG_H_
#define MILLRACE_TOOLS_HARDWARE_FLAG_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "planner/hardware_profiles.h"

namespace millrace {

struct DescribedMachine {
  HostSpec host;
  std::vector<std::string> notes;  // one for each part: where its figures come from
};

// "2x rtx-3090, ddr5-desktop 64GiB, pcie4x16, nvme-pcie4": parts in any order, in any case. Cards,
// each kind `Nx NAME`, with a size as budget if given; one host with the memory it has; at most one
// slot, the same for all cards (else the cards' own x16), and at most one disk. Without cards the
// CPU is the device. InvalidArgument names the part and lists what there is.
absl::StatusOr<DescribedMachine> ParseHardware(absl::string_view text);

// As `millrace probe -o` writes it. The file does not tell which cards multiply quantised weights
// as they are: room to dequantise is planned for all. Errors name the path.
absl::StatusOr<DescribedMachine> ReadHardwareFile(const std::string& path);

// InvalidArgument: no such card; lists those there are.
absl::StatusOr<const GpuProfile*> ParseGpuName(absl::string_view flag, absl::string_view name);

// Every profile with its figures and its source, for people.
std::string RenderHardwareProfiles();

}  // namespace millrace

#endif  // MILLRACE_TOOLS_HARDWARE_FLAG_H_
