// Planner and workers as real processes on loopback, for end-to-end tests. Ports are ephemeral;
// every wait is bounded; what was started is killed when the object dies.
#ifndef MILLRACE_TESTS_E2E_CLUSTER_PROCESS_H_
#define MILLRACE_TESTS_E2E_CLUSTER_PROCESS_H_

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "millrace/v1/planner.grpc.pb.h"

namespace millrace {

// A child process whose stderr goes to a file.
class ChildProcess {
 public:
  ChildProcess(const std::vector<std::string>& command, const std::string& log);
  ~ChildProcess();  // SIGKILL if it still runs
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void Signal(int number) const;
  // The exit code (128 + signal when killed), or -1 when it still runs after `timeout`.
  int Wait(absl::Duration timeout);
  std::string Log() const;
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  std::string log_;
};

struct Generated {
  absl::Status status;
  std::vector<int32_t> tokens;
  v1::GenerationSummary summary;
  bool offsets_in_order = true;
  absl::Duration took;
};

class TestCluster {
 public:
  TestCluster();  // starts the planner; CHECKs that it comes up
  ~TestCluster();

  // Starts or restarts a worker. `args`: more flags.
  void StartWorker(const std::string& name, const std::string& memory,
                   const std::vector<std::string>& args = {});
  // Until `count` workers are live; false after 15 s.
  bool WaitForWorkers(int count);
  bool WaitFor(const std::function<bool(const v1::ClusterStatus&)>& condition,
               absl::Duration timeout = absl::Seconds(15));

  absl::StatusOr<v1::LoadEvent> Load(const v1::LoadRequest& request);  // the last event
  // `on_token` may be null.
  Generated Generate(const v1::GenerateRequest& request,
                     const std::function<void(int)>& on_token = nullptr);
  v1::ClusterStatus Status();

  v1::PlannerService::Stub& stub() { return *stub_; }
  ChildProcess& planner() { return *planner_; }
  ChildProcess& worker(const std::string& name) { return *workers_.at(name); }
  std::string planner_address() const { return planner_address_; }
  std::string Logs() const;

 private:
  std::string folder_;
  std::string planner_address_;
  std::unique_ptr<ChildProcess> planner_;
  std::map<std::string, std::unique_ptr<ChildProcess>> workers_;
  std::unique_ptr<v1::PlannerService::Stub> stub_;
};

// What grpc.health.v1 answers for `service` at `address`: 1 = SERVING, 2 = NOT_SERVING; -1: no
// answer.
int Health(const std::string& address, const std::string& service);

struct GoldenCase {
  std::string prompt;
  std::vector<int32_t> ids;
  std::vector<int32_t> greedy;
  std::vector<float> last_logits;
};
// From ../shared/models/quill-7m-goldens.json; empty where it is absent.
std::vector<GoldenCase> ReadGoldens();

// Greedy, `tokens` long, never ending early.
v1::GenerateRequest GreedyRequest(const GoldenCase& golden, int tokens);

}  // namespace millrace

#endif  // MILLRACE_TESTS_E2E_CLUSTER_PROCESS_H_
