// Exit codes, error lines and JSON output that all subcommands share.
#ifndef MILLRACE_TOOLS_CLI_IO_H_
#define MILLRACE_TOOLS_CLI_IO_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "planner/solver.h"
#include "proto/ids.h"

namespace millrace {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitDoesNotFit = 3;

// InvalidArgument is bad usage; every other error is a failure.
int ExitCodeOf(const absl::Status& status);

// One object and a newline on stdout; bytes that are not UTF-8 become U+FFFD.
void PrintJson(const nlohmann::ordered_json& json);

// Tells why nothing fits (stderr, and with `json` as the one object on stdout). kExitDoesNotFit.
int ReportInfeasible(const Infeasibility& infeasible, bool json);

// "1,2,3". InvalidArgument names `flag` and the bad part.
absl::StatusOr<std::vector<int>> ParseIntList(absl::string_view flag, absl::string_view text,
                                              int min);

// The whole file. NotFound names flag and path.
absl::StatusOr<std::string> ReadTextFile(absl::string_view flag, const std::string& path);
absl::Status WriteTextFile(absl::string_view flag, const std::string& path,
                           absl::string_view contents);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_CLI_IO_H_
