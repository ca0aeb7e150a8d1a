// millrace-worker: holds stages of a model on this machine and serves them to a cluster.
#include <grpcpp/health_check_service_interface.h>
#include <malloc.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/grpc_transport.h"
#include "proto/server_process.h"
#include "proto/status_macros.h"
#include "worker/probe.h"
#include "worker/probe_cache.h"
#include "worker/process_memory.h"
#include "worker/registration.h"
#include "worker/worker_service.h"

namespace millrace {
namespace {

// What runs has been cancelled by then; this is for connections of idle clients.
constexpr absl::Duration kStopTimeout = absl::Seconds(2);
constexpr char kServiceName[] = "millrace.v1.WorkerService";

struct WorkerFlags {
  std::string name;
  std::string listen = "127.0.0.1:0";
  std::string advertise;
  std::string planner = "127.0.0.1:7600";
  std::string port_file;
  std::string host_memory;
  std::string devices = "auto";
  std::string model_dir;
  int threads = 0;
};

void AddFlags(CLI::App& app, WorkerFlags& flags) {
  app.add_option("--name", flags.name, "name of this worker, unique in the cluster")->required();
  app.add_option("--listen", flags.listen, "address to serve on; port 0: any free one")
      ->capture_default_str();
  app.add_option("--advertise", flags.advertise,
                 "address that others reach this worker at [the one it listens on]");
  app.add_option("--planner", flags.planner, "address of millrace-planner")->capture_default_str();
  app.add_option("--port-file", flags.port_file, "write the port here once it serves");
  app.add_option("--host-memory", flags.host_memory,
                 "memory this worker may use in all, its own process included, e.g. 48MiB "
                 "[what is available at start]");
  app.add_option("--devices", flags.devices,
                 "auto (all GPUs, or the CPU), or cpu, gpu0, gpu1, each with :BUDGET if wanted; the "
                 "same one again is a further device on the same hardware")
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "CPU threads; 0: all that this process may use")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  app.add_option("--model-dir", flags.model_dir,
                 "folder where relative model names are looked for");
}

absl::StatusOr<ProbeOptions> ProbeOptionsOf(const WorkerFlags& flags) {
  ProbeOptions options;
  options.worker = WorkerId(flags.name);
  options.threads = flags.threads;
  if (!flags.host_memory.empty()) {
    absl::StatusOr<Bytes> budget = ParseBytes(flags.host_memory);
    if (!budget.ok()) return Annotate(budget.status(), "--host-memory");
    options.host_memory = *budget;
  }
  MILLRACE_ASSIGN_OR_RETURN(options.devices, ParseDevices(flags.devices));
  options.cache_folder = DefaultCacheFolder();
  return options;
}

absl::Status CheckAddress(const WorkerFlags& flags) {
  if (!flags.advertise.empty()) return absl::OkStatus();
  if (!absl::StartsWith(flags.listen, "0.0.0.0:") && !absl::StartsWith(flags.listen, "[::]:")) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--listen ", flags.listen,
                   " says nothing about how others reach this worker: add --advertise HOST:PORT"));
}

absl::Status Serve(const WorkerFlags& flags) {
  MILLRACE_ASSIGN_OR_RETURN(ProbeOptions probe, ProbeOptionsOf(flags));
  MILLRACE_RETURN_IF_ERROR(CheckAddress(flags));
  WorkerOptions options;
  options.model_dir = flags.model_dir;
  MILLRACE_ASSIGN_OR_RETURN(options.host, ProbeHost(probe));
  WorkerService service;
  MILLRACE_ASSIGN_OR_RETURN(RunningServer running, StartServer(flags.listen, &service));
  options.host.address = flags.advertise.empty() ? running.address : flags.advertise;
  SetProcessOverhead(options.host, ResidentBytes());  // now with the server in it
  Worker worker(options);
  service.Attach(&worker);
  grpc::HealthCheckServiceInterface* health = running.server->GetHealthCheckService();
  health->SetServingStatus(kServiceName, false);
  MILLRACE_RETURN_IF_ERROR(WritePortFile(flags.port_file, running.port));
  const HostSpec& host = worker.options().host;
  spdlog::info("worker '{}' serves on {}: {} of {}, {} read, overhead {}", flags.name, host.address,
               FormatBytes(host.budget), FormatBytes(host.memory_total),
               FormatBandwidth(host.dram_bandwidth), FormatBytes(host.devices[0].overhead));
  Registration registration(&worker, flags.planner, [health](bool registered) {
    health->SetServingStatus(kServiceName, registered);
  });
  const int signal_number = WaitForStopSignal();
  spdlog::info("stopping on signal {}", signal_number);
  const absl::Time stop_by = absl::Now() + kStopTimeout;
  health->SetServingStatus(false);
  worker.Stop();
  registration.Stop();
  running.server->Shutdown(absl::ToChronoTime(stop_by));
  running.server->Wait();
  spdlog::info("stopped");
  return absl::OkStatus();
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  millrace::BlockStopSignals();
  mallopt(M_ARENA_MAX, 2);  // one arena per thread would be memory that no budget knows of
  spdlog::set_default_logger(spdlog::stderr_logger_mt("worker"));
  spdlog::set_pattern("%Y-%m-%d %H:%M:%S.%e %n %l: %v");
  spdlog::flush_on(spdlog::level::info);
  CLI::App app("millrace-worker: holds stages of a model and serves them to a cluster");
  millrace::WorkerFlags flags;
  millrace::AddFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const absl::Status status = millrace::Serve(flags);
  if (status.ok()) return 0;
  spdlog::error("{}", std::string(status.message()));
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}
