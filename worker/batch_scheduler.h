// BatchScheduler: which sessions run in the next pass, and what its results mean for them.
#ifndef MILLRACE_WORKER_BATCH_SCHEDULER_H_
#define MILLRACE_WORKER_BATCH_SCHEDULER_H_

#include <deque>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/engine.h"
#include "worker/pass.h"
#include "worker/session.h"

namespace millrace {

// Continuous batching: sessions join and leave between passes.
// 1. Add queues a session, first come first served; ResourceExhausted when the queue is full.
// 2. A pass carries one token of every decoding session first, then chunks of prompts, round-robin,
//    up to max_pass_tokens in all.
// 3. A session leaves when it is finished, cancelled, or its pass failed; its slot is then free.
// Not thread-safe: the engine locks around it. `now` is passed in: no clock inside.
class BatchScheduler {
 public:
  BatchScheduler(const EngineOptions& options, const Tokenizer* tokenizer);

  absl::Status Add(std::shared_ptr<Session> session);

  // Frees cancelled sessions, admits waiting ones, fills a pass. False: nothing to do.
  bool NextBatch(absl::Time now, Pass& pass);

  // The result of the pass NextBatch made. Returns the sessions that are finished; the caller
  // notifies them.
  std::vector<std::shared_ptr<Session>> Complete(const Pass& pass, PassResult result,
                                                 absl::Time now);
  // The pass failed: every session in it ends with `status`.
  std::vector<std::shared_ptr<Session>> Fail(const absl::Status& status);
  // Ends everything, waiting sessions too.
  std::vector<std::shared_ptr<Session>> FailAll(const absl::Status& status);
  // Sessions that were found cancelled by the last NextBatch.
  std::vector<std::shared_ptr<Session>> TakeCancelled();

  bool Cancel(const RequestId& id);
  bool idle() const { return running_.empty() && waiting_.empty(); }
  int running() const { return static_cast<int>(running_.size()); }
  int waiting() const { return static_cast<int>(waiting_.size()); }

 private:
  // What one session has in the pass under way.
  struct Share {
    std::shared_ptr<Session> session;
    int tokens = 0;
    int outputs = 0;
  };

  void DropCancelled();
  void Admit(absl::Time now);
  void AddShare(const std::shared_ptr<Session>& session, int tokens, Pass& pass);
  bool TakeToken(Session& s, const RowOutput& output, absl::Time now);
  bool FinishIfFull(Session& s);
  static std::string Flush(Session& s);
  void Emit(Session& s, const RowOutput& output, std::string text);
  void Leave(const std::shared_ptr<Session>& session);

  const EngineOptions options_;
  const Tokenizer* const tokenizer_;
  std::deque<std::shared_ptr<Session>> waiting_;
  std::vector<std::shared_ptr<Session>> running_;
  std::vector<std::shared_ptr<Session>> cancelled_;
  std::vector<int> free_slots_;
  std::vector<Share> shares_;
  size_t next_prefill_ = 0;  // where the round of prompts goes on
  size_t next_decode_ = 0;   // likewise of decodes, when a pass cannot hold them all
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_BATCH_SCHEDULER_H_
