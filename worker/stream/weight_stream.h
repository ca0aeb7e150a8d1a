// WeightStream: brings weights from host memory into a ring in device memory ahead of their use.
//
// A copy thread walks the groups in the order in which a pass uses them and, at the order's end,
// goes on with its beginning for the pass after, so that the link works across passes. A group is
// in the ring from the moment its copy is queued until the work that read it is done.
//
//   BeginPass(order);
//   for each group of the order:
//     lease = Acquire(group);      // returns once the copy is queued
//     lease.ComputeAfterArrival(); // the compute queue waits, not the host
//     ... queue work that reads the ring from lease.ring_offset() on ...
//     lease.Release();             // or the lease dies: the bytes are free after that work
//
// Threading: one thread, the compute queue's owner, calls everything but Cancel, stats and
// TakeEvents.
#ifndef MILLRACE_WORKER_STREAM_WEIGHT_STREAM_H_
#define MILLRACE_WORKER_STREAM_WEIGHT_STREAM_H_

#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "worker/stream/chunk_source.h"
#include "worker/stream/ring_arena.h"
#include "worker/stream/stream_device.h"
#include "worker/stream/stream_group.h"
#include "worker/stream/stream_stats.h"

namespace millrace {

class WeightStream;

// A group in the ring, to be read by the compute queue. Move-only; dies before its stream.
class WeightLease {
 public:
  WeightLease() = default;
  WeightLease(WeightLease&& other) noexcept { *this = std::move(other); }
  WeightLease& operator=(WeightLease&& other) noexcept;
  ~WeightLease() { (void)Release(); }

  int group() const { return group_; }
  int slot() const { return slot_; }  // of StreamDevice: for further queues that read the bytes
  Bytes ring_offset() const { return offset_; }

  // Compute work queued from here on finds the bytes in place.
  absl::Status ComputeAfterArrival() const;
  // The ring's bytes are free once the compute work queued so far is done. An error comes again
  // from the next Acquire. Does nothing the second time.
  absl::Status Release();

 private:
  friend class WeightStream;
  WeightStream* stream_ = nullptr;
  int group_ = -1;
  int slot_ = -1;
  Bytes offset_;
};

struct WeightStreamOptions {
  // kCaller: no thread; the walk goes on inside of BeginPass, Acquire, Release and Pump. With a
  // simulated device everything is then repeatable.
  enum class Drive { kThread, kCaller };
  Drive drive = Drive::kThread;
  size_t max_events = 1 << 16;  // kept until TakeEvents
  absl::Duration source_timeout = absl::Seconds(60);
  absl::Duration quiesce_timeout = absl::Seconds(60);
};

class WeightStream {
 public:
  // `device` and `source` outlive the stream. InvalidArgument where a group is larger than the
  // ring.
  static absl::StatusOr<std::unique_ptr<WeightStream>> Create(StreamDevice* device,
                                                              ChunkSource* source,
                                                              std::vector<StreamGroup> groups,
                                                              const WeightStreamOptions& options);
  // Cancels, then waits until no copy is under way: at most about the options' timeouts.
  ~WeightStream();
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  // The groups that the pass will acquire, in this order. What is on its way stays where the order
  // begins with it; the rest is dropped. An order without groups leaves everything as it is. A pass
  // may end early: the next BeginPass drops what was not acquired. A source's error is over with
  // the next BeginPass, which tries again. InvalidArgument, Cancelled, the device's error.
  absl::Status BeginPass(absl::Span<const int> order);

  // The next group of the order; leases of earlier ones may live on. Waits until its copies are
  // queued, not until they are made. FailedPrecondition where the order says otherwise,
  // ResourceExhausted where living leases leave no room for it, DeadlineExceeded after `timeout`,
  // Cancelled, or what the copy thread met, with the tensor named.
  absl::StatusOr<WeightLease> Acquire(int group, absl::Duration timeout);

  // Goes on as far as possible (Drive::kCaller only).
  void Pump();
  // Any thread. Acquire and BeginPass return Cancelled from now on. Does not wait.
  void Cancel();

  const StreamGroup& group(int index) const { return groups_[static_cast<size_t>(index)]; }
  // Any thread.
  StreamStats stats() const;
  std::vector<CopyEvent> TakeEvents();

 private:
  friend class WeightLease;
  enum class State : uint8_t { kFree, kFilling, kQueued, kLeased, kReleased };
  // What the ring holds in a slot.
  struct Entry {
    State state = State::kFree;
    bool dropped = false;  // nobody will acquire it
    int group = -1;
    int64_t position = 0;  // in the order; from its size on: in the next pass
    Bytes offset;
    size_t queued = 0;  // chunks
  };
  // Where a walk along the order is.
  struct Cursor {
    int64_t position = 0;
    size_t chunk = 0;
  };
  enum class Step { kDid, kNoRoom, kWaits, kNothing };  // kWaits: for a copy or for the source

  WeightStream(StreamDevice* device, ChunkSource* source, std::vector<StreamGroup> groups,
               const WeightStreamOptions& options);

  bool threaded() const { return options_.drive == WeightStreamOptions::Drive::kThread; }
  int GroupAt(int64_t position) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return order_[static_cast<size_t>(position) % order_.size()];
  }
  int64_t end_position() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return 2 * static_cast<int64_t>(order_.size());
  }

  // ---- compute side ----
  std::vector<int> PendingSlots() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Restart(absl::Span<const int> order) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Slot of the group next to acquire once all of it is queued, or -1.
  int ReadySlot() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status WaitForProgress(absl::Time deadline, int group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status ReleaseSlot(int slot) ABSL_LOCKS_EXCLUDED(mu_);

  // ---- the walk ----
  void Run();
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // One piece of work; gives the lock away meanwhile.
  Step TakeStep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Step> TryStep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RemoveDropped() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CollectFinished() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RequestAhead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Gives the next group a slot and room in the ring, taking released ones back: false where the
  // oldest is not released.
  absl::StatusOr<bool> OpenEntry() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status QueueChunk() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // `lost`: the source failed, not the device.
  absl::Status CopyChunk(const StreamChunk& chunk, Bytes ring_offset, absl::Duration* waited,
                         bool* lost) ABSL_LOCKS_EXCLUDED(mu_);
  void LoseEntry(int slot, const absl::Status& error) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Fail(const absl::Status& error, bool final) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  StreamStall WhyNoRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  StreamDevice* const device_;
  ChunkSource* const source_;
  const std::vector<StreamGroup> groups_;
  const WeightStreamOptions options_;

  mutable absl::Mutex mu_;
  absl::CondVar work_, progress_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status error_ ABSL_GUARDED_BY(mu_);
  bool error_is_final_ ABSL_GUARDED_BY(mu_) = false;  // the device's, not the source's
  std::vector<int> order_ ABSL_GUARDED_BY(mu_);
  bool pass_open_ ABSL_GUARDED_BY(mu_) = false;
  int64_t next_acquire_ ABSL_GUARDED_BY(mu_) = 0;

  RingArena arena_ ABSL_GUARDED_BY(mu_);
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mu_);  // by slot
  std::deque<int> ring_ ABSL_GUARDED_BY(mu_);        // slots, oldest first, as in arena_
  int filling_ ABSL_GUARDED_BY(mu_) = -1;            // slot being filled
  int64_t next_fill_ ABSL_GUARDED_BY(mu_) = 0;       // position of the next group to get a slot
  Cursor requested_ ABSL_GUARDED_BY(mu_);            // the next chunk to ask the source for
  int requests_ ABSL_GUARDED_BY(mu_) = 0;            // asked for and not taken
  bool forget_ ABSL_GUARDED_BY(mu_) = false;         // requests made so far do not fit the order
  bool no_room_ ABSL_GUARDED_BY(mu_) = false;        // the walk waits for a release
  StreamRecorder recorder_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_WEIGHT_STREAM_H_
