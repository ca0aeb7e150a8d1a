// millrace-planner: the front door of a cluster: membership, plans, and the relay of generations.
#include <grpcpp/health_check_service_interface.h>
#include <malloc.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <string>

#include "absl/time/clock.h"
#include "planner/planner_service.h"
#include "proto/grpc_transport.h"
#include "proto/server_process.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

// What runs has been cancelled by then; this is for connections of idle clients.
constexpr absl::Duration kStopTimeout = absl::Seconds(2);

struct PlannerFlags {
  std::string listen = "127.0.0.1:7600";
  std::string port_file;
};

absl::Status Serve(const PlannerFlags& flags) {
  PlannerOptions options;
  options.version = MILLRACE_VERSION;
  PlannerService service(options);
  MILLRACE_ASSIGN_OR_RETURN(RunningServer running, StartServer(flags.listen, &service));
  grpc::HealthCheckServiceInterface* health = running.server->GetHealthCheckService();
  health->SetServingStatus("millrace.v1.PlannerService", true);
  MILLRACE_RETURN_IF_ERROR(WritePortFile(flags.port_file, running.port));
  spdlog::info("planner {} serves on {}", options.version, running.address);
  const int signal_number = WaitForStopSignal();
  spdlog::info("stopping on signal {}", signal_number);
  health->SetServingStatus(false);
  service.Stop();
  running.server->Shutdown(absl::ToChronoTime(absl::Now() + kStopTimeout));
  running.server->Wait();
  spdlog::info("stopped");
  return absl::OkStatus();
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  millrace::BlockStopSignals();
  spdlog::set_default_logger(spdlog::stderr_logger_mt("planner"));
  spdlog::set_pattern("%Y-%m-%d %H:%M:%S.%e %n %l: %v");
  spdlog::flush_on(spdlog::level::info);
  CLI::App app("millrace-planner: the front door of a millrace cluster");
  millrace::PlannerFlags flags;
  app.add_option("--listen", flags.listen, "address to serve on; port 0: any free one")
      ->capture_default_str();
  app.add_option("--port-file", flags.port_file, "write the port here once it serves");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const absl::Status status = millrace::Serve(flags);
  if (status.ok()) return 0;
  spdlog::error("{}", std::string(status.message()));
  return 1;
}
