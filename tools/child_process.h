// Runs another program to its end.
#ifndef MILLRACE_TOOLS_CHILD_PROCESS_H_
#define MILLRACE_TOOLS_CHILD_PROCESS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {

// Everything the program writes to stdout; its stderr goes to ours. arguments[0] is a path, or a
// name that is looked up where commands are. NotFound: it cannot be run; Unavailable: it failed.
absl::StatusOr<std::string> RunAndRead(std::vector<std::string> arguments);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_CHILD_PROCESS_H_
