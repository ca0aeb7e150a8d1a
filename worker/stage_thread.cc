#include "worker/stage_thread.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace millrace {
namespace {

enum Phase { kQueued, kTaking, kRunning, kDone };

// A stage gets a little less time than its caller waits, so that of a chain the stage before the late
// one reports it: it knows best which one it is.
absl::Time EarlierThan(absl::Time deadline) {
  const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
  return deadline - std::min(absl::Milliseconds(50), left / 10);
}

// The clock cannot express the infinite future.
std::chrono::system_clock::time_point ToChrono(absl::Time deadline) {
  return absl::ToChronoTime(std::min(deadline, absl::Now() + absl::Hours(1)));
}

}  // namespace

// A pass on its way through the thread. It has the pass's own copy, for it may outlive the call.
struct StageThread::Job {
  Pass pass;
  HiddenStates hidden;  // valid while Run waits: until kRunning
  absl::Time deadline;
  int phase = kQueued;                // guarded by mu_
  absl::StatusOr<PassResult> result;  // set before kDone
};

absl::StatusOr<Bytes> StageThread::Loading::Wait() const {
  std::unique_lock lock(mu_);
  changed_.wait(lock, [this] { return done_; });
  return resident_;
}

void StageThread::Loading::Set(absl::StatusOr<Bytes> resident) {
  const std::lock_guard lock(mu_);
  resident_ = std::move(resident);
  done_ = true;
  changed_.notify_all();
}

StageThread::StageThread(int stage, Create create)
    : stage_(stage),
      loading_(std::make_shared<Loading>()),
      thread_([this, create = std::move(create)]() mutable { Main(std::move(create)); }) {}

StageThread::~StageThread() {
  {
    const std::lock_guard lock(mu_);
    stopping_ = true;
    cancelled_ = true;
    if (runner_ != nullptr) runner_->Cancel();
    changed_.notify_all();
  }
  thread_.join();
}

void StageThread::Main(Create create) {
  absl::StatusOr<std::unique_ptr<StageRunner>> runner = std::move(create)();
  create = nullptr;  // what it holds dies on this thread too
  if (runner.ok()) {
    const std::lock_guard lock(mu_);
    runner_ = runner->get();
  }
  loading_->Set(runner.ok() ? absl::StatusOr<Bytes>((*runner)->resident_bytes())
                            : absl::StatusOr<Bytes>(runner.status()));
  while (const std::shared_ptr<Job> job = NextJob()) {
    job->result = runner.ok() ? Do(**runner, *job) : runner.status();
    Advance(*job, kDone);
  }
  const std::lock_guard lock(mu_);
  runner_ = nullptr;
}

// Waits for a pass and begins it. Null: the thread ends.
std::shared_ptr<StageThread::Job> StageThread::NextJob() {
  std::unique_lock lock(mu_);
  changed_.wait(lock, [this] { return stopping_ || waiting_ != nullptr; });
  if (stopping_) return nullptr;
  waiting_->phase = waiting_->hidden.rows.rows > 0 ? kTaking : kRunning;
  return std::move(waiting_);
}

absl::StatusOr<PassResult> StageThread::Do(StageRunner& runner, Job& job) {
  HiddenStates hidden;
  hidden.rows = job.hidden.rows;
  hidden.device = job.hidden.device;
  hidden.taken = [this, &job] { Advance(job, kRunning); };
  return runner.Run(job.pass, hidden, job.deadline);
}

void StageThread::Advance(Job& job, int phase) {
  const std::lock_guard lock(mu_);
  job.phase = phase;
  changed_.notify_all();
}

absl::StatusOr<PassResult> StageThread::Run(const Pass& pass, const HiddenStates& hidden,
                                            absl::Time deadline) {
  auto job = std::make_shared<Job>();
  job->pass = pass;
  job->hidden.rows = hidden.rows;
  job->hidden.device = hidden.device;
  job->deadline = EarlierThan(deadline);
  std::unique_lock lock(mu_);
  cancelled_ = stopping_;
  waiting_ = job;
  changed_.notify_all();
  while (job->phase != kDone) {
    const bool give_up = cancelled_ || absl::Now() >= deadline;
    if (give_up && job->phase != kTaking) break;
    if (give_up) {
      changed_.wait(lock);  // not long: the stage copies the rows or queues the copy
    } else {
      changed_.wait_until(lock, ToChrono(deadline));
    }
  }
  if (job->phase == kDone) return std::move(job->result);
  if (waiting_ == job) waiting_ = nullptr;
  if (cancelled_) return absl::CancelledError("the pass was cancelled");
  return absl::UnavailableError(
      absl::StrCat("stage ", stage_, " did not finish pass ", pass.id, " in time"));
}

void StageThread::Cancel() {
  const std::lock_guard lock(mu_);
  cancelled_ = true;
  if (runner_ != nullptr) runner_->Cancel();
  changed_.notify_all();
}

bool StageThread::takes_device_rows() const {
  const std::lock_guard lock(mu_);
  return runner_ != nullptr && runner_->takes_device_rows();
}

Bytes StageThread::resident_bytes() const {
  const std::lock_guard lock(mu_);
  return runner_ != nullptr ? runner_->resident_bytes() : Bytes(0);
}

}  // namespace millrace
