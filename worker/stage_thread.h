// StageThread: a stage of this process on a thread of its own, which owns the stage's device: it
// creates the stage, runs its passes and destroys it.
#ifndef MILLRACE_WORKER_STAGE_THREAD_H_
#define MILLRACE_WORKER_STAGE_THREAD_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "worker/stage_runner.h"

namespace millrace {

// Contract, beside StageRunner's:
// 1. The constructor returns at once, and the thread calls `create`. Until that has ended passes
//    wait; if it failed they get its status.
// 2. One pass is under way and at most one waits: Run is called by one thread at a time.
// 3. Run returns Unavailable when `deadline` has passed, Cancelled after Cancel. A pass that had not
//    begun is then withdrawn; one that had is finished by the thread, its result is dropped, and the
//    next pass waits for it. Only while the stage is taking in the pass's rows Run waits longer:
//    the caller may overwrite them when it returns.
// 4. The destructor cancels what runs and waits until the thread has ended that pass (or `create`)
//    and has destroyed the stage.
//
// Synchronised by the standard library's types, which ThreadSanitizer sees through.
class StageThread : public StageRunner {
 public:
  using Create = absl::AnyInvocable<absl::StatusOr<std::unique_ptr<StageRunner>>() &&>;

  // How `create` ended. Outlives the thread.
  class Loading {
   public:
    // Waits for `create`, however long it takes: the stage's resident bytes.
    absl::StatusOr<Bytes> Wait() const;

   private:
    friend class StageThread;
    void Set(absl::StatusOr<Bytes> resident);
    mutable std::mutex mu_;
    mutable std::condition_variable changed_;
    bool done_ = false;                // guarded by mu_
    absl::StatusOr<Bytes> resident_;   // guarded by mu_
  };

  StageThread(int stage, Create create);
  ~StageThread() override;

  std::shared_ptr<const Loading> loading() const { return loading_; }

  absl::StatusOr<PassResult> Run(const Pass& pass, const HiddenStates& hidden,
                                 absl::Time deadline) override;
  void Cancel() override;
  // The three below: what the stage says; only after it is loaded.
  bool takes_device_rows() const override;
  int stage() const override { return stage_; }
  Bytes resident_bytes() const override;

 private:
  struct Job;
  void Main(Create create);
  std::shared_ptr<Job> NextJob();
  absl::StatusOr<PassResult> Do(StageRunner& runner, Job& job);
  void Advance(Job& job, int phase);

  const int stage_;
  const std::shared_ptr<Loading> loading_;
  mutable std::mutex mu_;
  std::condition_variable changed_;
  // Guarded by mu_.
  StageRunner* runner_ = nullptr;  // owned by Main; null before it is loaded and after it is gone
  std::shared_ptr<Job> waiting_;
  bool cancelled_ = false;
  bool stopping_ = false;
  std::thread thread_;  // last: everything above is there when it starts
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STAGE_THREAD_H_
