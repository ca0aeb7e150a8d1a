#include "proto/server_process.h"

#include <signal.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

}  // namespace

void BlockStopSignals() {
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int WaitForStopSignal() {
  const sigset_t signals = StopSignals();
  int number = 0;
  while (sigwait(&signals, &number) != 0) {
  }
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  return number;
}

absl::Status WritePortFile(const std::string& path, int port) {
  if (path.empty()) return absl::OkStatus();
  const std::string partial = path + ".partial";
  const auto failed = [&](absl::string_view what) {
    return absl::InternalError(
        absl::StrCat("--port-file '", path, "': ", what, ": ", std::strerror(errno)));
  };
  std::FILE* file = std::fopen(partial.c_str(), "w");
  if (file == nullptr) return failed("cannot create");
  const bool written = std::fprintf(file, "%d\n", port) > 0;
  if (std::fclose(file) != 0 || !written) return failed("cannot write");
  if (std::rename(partial.c_str(), path.c_str()) != 0) return failed("cannot rename into place");
  return absl::OkStatus();
}

}  // namespace millrace
