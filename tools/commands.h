// The subcommands, one file each: Add...Command declares the flags and, when the user chose it,
// puts what to do into `chosen`.
#ifndef MILLRACE_TOOLS_COMMANDS_H_
#define MILLRACE_TOOLS_COMMANDS_H_

#include <CLI/CLI.hpp>
#include <functional>

#include "absl/status/statusor.h"

namespace millrace {

// The exit code, or an error for stderr (InvalidArgument exits 2, others 1).
using Command = std::function<absl::StatusOr<int>()>;

void AddInspectCommand(CLI::App& app, Command& chosen);
void AddProbeCommand(CLI::App& app, Command& chosen);
void AddPlanCommand(CLI::App& app, Command& chosen);
void AddRunCommand(CLI::App& app, Command& chosen);
void AddEvalCommand(CLI::App& app, Command& chosen);
void AddCalibrateCommand(CLI::App& app, Command& chosen);
void AddLogitsCommand(CLI::App& app, Command& chosen);
void AddTokenizeCommand(CLI::App& app, Command& chosen);
void AddSynthCommand(CLI::App& app, Command& chosen);
void AddBenchCommand(CLI::App& app, Command& chosen);
void AddStatusCommand(CLI::App& app, Command& chosen);

// Below `plan`.
void AddPlanDiffCommand(CLI::App& plan, Command& chosen);
void AddPlanVerifyCommand(CLI::App& plan, Command& chosen);
void AddPlanWatchCommand(CLI::App& plan, Command& chosen);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_COMMANDS_H_
