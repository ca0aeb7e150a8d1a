// Registration: keeps this worker a member of the planner's cluster: registers, sends heartbeats,
// and registers again whenever the session breaks.
#ifndef MILLRACE_WORKER_REGISTRATION_H_
#define MILLRACE_WORKER_REGISTRATION_H_

#include <grpcpp/client_context.h>

#include <functional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "millrace/v1/planner.grpc.pb.h"
#include "worker/worker.h"

namespace millrace {

// One thread holds the session; Stop and the destructor may be called by any other.
class Registration {
 public:
  // `on_change(true)` when registered, `on_change(false)` when the session broke. Starts at once.
  Registration(Worker* worker, std::string planner, std::function<void(bool)> on_change);
  ~Registration();

  // Leaves the cluster in good order (bounded by a second) and ends the thread.
  void Stop();

 private:
  void Loop();
  absl::Status HoldSession(bool& registered);
  bool SleepUnlessStopped(absl::Duration duration);
  bool stopping() const;

  Worker* const worker_;
  const std::string planner_;
  const std::function<void(bool)> on_change_;
  mutable absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mu_) = nullptr;  // of the session under way
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_REGISTRATION_H_
