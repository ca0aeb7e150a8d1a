// millrace: the command line.
#include <cstdio>
#include <string>

#include "tools/cli_io.h"
#include "tools/commands.h"

int main(int argc, char** argv) {
  CLI::App app("millrace: plans and runs large language models over several devices and machines");
  app.set_version_flag("--version", MILLRACE_VERSION);
  app.require_subcommand(1);
  millrace::Command chosen;
  millrace::AddInspectCommand(app, chosen);
  millrace::AddProbeCommand(app, chosen);
  millrace::AddPlanCommand(app, chosen);
  millrace::AddRunCommand(app, chosen);
  millrace::AddEvalCommand(app, chosen);
  millrace::AddCalibrateCommand(app, chosen);
  millrace::AddLogitsCommand(app, chosen);
  millrace::AddTokenizeCommand(app, chosen);
  millrace::AddSynthCommand(app, chosen);
  millrace::AddBenchCommand(app, chosen);
  millrace::AddStatusCommand(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::string name = "millrace";
    for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
      at = at->get_subcommands().front();
      name += " " + at->get_name();
    }
    std::fprintf(stderr, "%s: %s (see `%s --help`)\n", name.c_str(), error.what(), name.c_str());
    return millrace::kExitUsage;
  }
  const absl::StatusOr<int> code = chosen();
  if (code.ok()) return *code;
  std::fflush(stdout);
  std::fprintf(stderr, "millrace: %s\n", std::string(code.status().message()).c_str());
  return millrace::ExitCodeOf(code.status());
}
