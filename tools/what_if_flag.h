// --what-if: changes to a machine, in words.
#ifndef MILLRACE_TOOLS_WHAT_IF_FLAG_H_
#define MILLRACE_TOOLS_WHAT_IF_FLAG_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "planner/what_if.h"

namespace millrace {

// "gpu0=24GiB,host=64GiB,pcie=4x8": what may be used of a device (any id, `gpu` for every GPU) or
// of the hosts' memory; pcie=GENERATIONxLANES, dram=80GB/s, disk=3GB/s or the name of one,
// add=rtx-3090 (again for more). InvalidArgument names the part; whether the devices are there is
// for Changed to say.
absl::StatusOr<MachineChange> ParseWhatIf(absl::string_view text);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_WHAT_IF_FLAG_H_
