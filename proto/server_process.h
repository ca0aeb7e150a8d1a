// What the mains of the server processes share: waiting for SIGTERM, writing the port file.
#ifndef MILLRACE_PROTO_SERVER_PROCESS_H_
#define MILLRACE_PROTO_SERVER_PROCESS_H_

#include <string>

#include "absl/status/status.h"

namespace millrace {

// Blocks SIGTERM and SIGINT in this thread and all that it starts later, and ignores SIGPIPE. Call
// first in main, before any thread exists.
void BlockStopSignals();

// Waits until SIGTERM or SIGINT arrives; returns its number. After it a second one ends the process
// at once with its default action.
int WaitForStopSignal();

// Writes the port as decimal digits, by renaming a complete file into place. Empty path: nothing.
absl::Status WritePortFile(const std::string& path, int port);

}  // namespace millrace

#endif  // MILLRACE_PROTO_SERVER_PROCESS_H_
