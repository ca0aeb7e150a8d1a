// Worker: what one worker process holds: at most one epoch's stages, and the engine if the first
// stage is among them. No gRPC calls come in here; worker/worker_service.h translates.
#ifndef MILLRACE_WORKER_WORKER_H_
#define MILLRACE_WORKER_WORKER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "millrace/v1/worker.pb.h"
#include "proto/activation_needs.h"
#include "proto/cluster_spec.h"
#include "proto/placement_plan.h"
#include "worker/engine.h"
#include "worker/link/stage_server.h"
#include "worker/live_memory.h"

namespace millrace {

struct WorkerOptions {
  std::string model_dir;  // where relative model references are looked for first; may be empty
  HostSpec host;          // name, address, threads and budgets, as registered
  MemorySource memory = ThisMachine();  // read again before stages load
};

struct ModelDescription {
  ModelSpec model;
  std::string fingerprint;
  v1::PlanOptions options;  // defaults resolved
  ActivationNeeds activations;      // of a stage on a CPU
  ActivationNeeds gpu_activations;  // on a GPU
  ActivationNeeds host_route_activations;  // of a CPU in passes of up to kMaxHostRouteTokens
};

// The stages of one epoch. Immutable once published; whoever serves a call holds a reference.
struct LoadedStages {
  PlacementPlan plan;
  std::vector<int> stages;                            // of the plan, ascending
  std::map<int, Bytes> stage_resident;                // as allocated
  std::unique_ptr<Engine> engine;                     // set where stage 0 is loaded
  std::vector<std::unique_ptr<StageServer>> servers;  // of the stages that another worker feeds
  Bytes resident;                                     // by all stages, as allocated
};

// Thread-safe. One Load or Unload runs at a time; the others see the stages of before or after.
class Worker {
 public:
  // (stage, done, total), bytes.
  using Progress = std::function<void(int, Bytes, Bytes)>;

  explicit Worker(WorkerOptions options);
  ~Worker();

  // Of the request's spec where it has one, else of the model that it names. Activations are of this
  // worker unless the request says of which machine. NotFound, DataLoss, Unimplemented: from
  // Model::Open, named. InvalidArgument names the field.
  absl::StatusOr<ModelDescription> Describe(const v1::DescribeModelRequest& request);

  // Drops what is loaded, then loads `stages` of the plan. FailedPrecondition: an epoch not newer
  // than the newest seen (both named), a stage of another worker, plan and model differ, memory that
  // was free for the plan no longer is (worker/live_memory.h). ResourceExhausted: memory. On failure nothing is loaded.
  absl::StatusOr<Bytes> Load(const PlacementPlan& plan, std::vector<int> stages, int max_queue,
                             const Progress& progress);

  // options().host with no larger budgets than are free now; what is loaded here is not free.
  HostSpec Budgets() const { return BudgetsNow(options_.host, options_.memory); }

  // 0 = whatever is loaded. NotFound: another epoch is loaded. Generations under way are cancelled.
  absl::Status Unload(Epoch epoch);

  // FailedPrecondition: nothing is loaded, or not the first stage.
  absl::StatusOr<std::shared_ptr<LoadedStages>> Leading() const;
  // FailedPrecondition: that epoch or stage is not loaded here. The server lives as long as the
  // reference.
  absl::StatusOr<std::shared_ptr<StageServer>> FindStage(Epoch epoch, int stage) const;

  // Refuses new work with Unavailable and ends what runs.
  void Stop();

  const WorkerOptions& options() const { return options_; }
  Epoch loaded_epoch() const;
  Epoch highest_epoch() const;
  v1::WorkerStatus Status() const;  // does not wait for a load under way

 private:
  absl::StatusOr<std::shared_ptr<const Model>> OpenModel(const std::string& reference);
  absl::StatusOr<ModelSpec> SpecOf(const v1::DescribeModelRequest& request);
  absl::Status BeginChange(Epoch epoch);
  absl::Status DropLoaded();
  absl::StatusOr<std::shared_ptr<LoadedStages>> Build(const PlacementPlan& plan,
                                                      const std::vector<int>& stages, int max_queue,
                                                      const Progress& progress);

  const WorkerOptions options_;
  absl::Mutex change_mu_ ABSL_ACQUIRED_BEFORE(mu_);  // held during Load and Unload
  mutable absl::Mutex mu_;
  std::shared_ptr<LoadedStages> loaded_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const Model> model_ ABSL_GUARDED_BY(mu_);  // last opened
  std::string model_reference_ ABSL_GUARDED_BY(mu_);
  Epoch highest_epoch_ ABSL_GUARDED_BY(mu_);
  bool loading_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

// Where a reference points on this worker: the demo model and absolute paths as they are, others in
// `model_dir` if they are found there, else as they are.
std::string ResolveModelReference(const std::string& reference, const std::string& model_dir);

}  // namespace millrace

#endif  // MILLRACE_WORKER_WORKER_H_
