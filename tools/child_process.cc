#include "tools/child_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace millrace {

absl::StatusOr<std::string> RunAndRead(std::vector<std::string> arguments) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::InternalError("pipe failed");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (error != 0) {
    close(ends[0]);
    return absl::NotFoundError(
        absl::StrCat("cannot run '", arguments[0], "': ", std::strerror(error)));
  }
  std::string output;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof(buffer))) > 0;) output.append(buffer, n);
  close(ends[0]);
  int state = 0;
  waitpid(pid, &state, 0);
  if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return output;
  return absl::UnavailableError(
      absl::StrCat("'", arguments[0], "' failed; its messages stand above"));
}

}  // namespace millrace
