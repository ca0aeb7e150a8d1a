// A device that is not there: declared rates and a virtual clock. Copies and compute work take
// virtual time, and bytes really move when their time comes, so that reading a group before its
// arrival or writing over a leased one gives wrong bytes.
#ifndef MILLRACE_WORKER_STREAM_SIM_STREAM_DEVICE_H_
#define MILLRACE_WORKER_STREAM_SIM_STREAM_DEVICE_H_

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "worker/stream/chunk_source.h"
#include "worker/stream/stream_device.h"

namespace millrace {

struct SimStreamSpec {
  Bytes ring;
  int slots = 64;
  int max_queued_copies = 1 << 20;
  Bandwidth link;                                 // host to device
  Bandwidth place = Bandwidth::GBPerSecond(1e6);  // from the stage into the ring
  int stages = 4;  // chunks that are on the device and not in the ring yet
};

// Queues as a GPU has them: what is queued begins when its queue is free and what it waits for is
// done, not before now. The host is as fast as can be: the clock moves in AdvanceTo and
// WaitForCopy only. Thread-safe; repeatable when driven by one thread.
class SimStreamDevice : public StreamDevice {
 public:
  explicit SimStreamDevice(const SimStreamSpec& spec);

  Bytes ring_size() const override { return spec_.ring; }
  int slots() const override { return spec_.slots; }
  int max_queued_copies() const override { return spec_.max_queued_copies; }
  absl::Time Now() const override;

  absl::Status WriteAfterRelease(int slot) override;
  absl::Status Copy(const StreamChunk& chunk, const std::byte* from, Bytes ring_offset) override;
  absl::Status RecordArrival(int slot) override;
  absl::StatusOr<std::vector<CopySpan>> Finished() override;
  absl::Status WaitForCopy(absl::Duration timeout) override;
  absl::Status Quiesce(absl::Duration timeout) override;
  absl::Status ComputeAfterArrival(int slot) override;
  absl::Status RecordRelease(int slot) override;

  // ---- for whoever plays the host ----
  // The copy queued next cannot begin before `time`: its bytes are late.
  void HoldNextCopy(absl::Time time);
  // Compute work that is done at one moment of the virtual clock, on the ring as it is then. It is
  // called by whoever moves the clock, and does not call the device.
  using Work = std::function<void(absl::Span<std::byte> ring)>;
  // Queues compute work of `duration`: `begin` is done when it begins, `end` when it ends; either
  // may be empty. Work of no duration has an end only.
  void Compute(absl::Duration duration, Work begin, Work end);
  // The same of work that reads the ring from `ring_offset` on and expects to find `expected` there
  // from its begin to its end. Takes at least a nanosecond.
  void Compute(absl::Duration duration, Bytes ring_offset, absl::Span<const std::byte> expected);
  // Work that reads no streamed weights.
  void Compute(absl::Duration duration) { Compute(duration, Bytes(0), {}); }
  // Work that found wrong bytes says so.
  void CountWrongRead() { ++wrong_reads_; }
  absl::Time compute_end() const;  // of all queued so far
  void AdvanceTo(absl::Time time);
  // Waits for the compute queue, as a host does that wants results.
  void Synchronize() { AdvanceTo(compute_end()); }
  // The end of the copy that ends next; infinite where none is under way.
  absl::Time next_copy_end() const;
  int64_t wrong_reads() const { return wrong_reads_; }
  // Every function of the copy side returns it from now on.
  void FailCopies(absl::Status status);

 private:
  // Ends come before begins at one time; then in the order of queueing.
  using When = std::tuple<absl::Time, int, int64_t>;
  void At(absl::Time time, bool begin, std::function<void()> what)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Advance(absl::Time time) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const SimStreamSpec spec_;
  mutable absl::Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_);
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
  std::vector<std::byte> ring_ ABSL_GUARDED_BY(mu_);
  std::map<When, std::function<void()>> events_ ABSL_GUARDED_BY(mu_);
  int64_t queued_events_ ABSL_GUARDED_BY(mu_) = 0;
  // When the queues are free.
  absl::Time link_free_ ABSL_GUARDED_BY(mu_), place_free_ ABSL_GUARDED_BY(mu_),
      compute_free_ ABSL_GUARDED_BY(mu_);
  absl::Time write_after_ ABSL_GUARDED_BY(mu_), held_until_ ABSL_GUARDED_BY(mu_);
  std::vector<absl::Time> stage_free_ ABSL_GUARDED_BY(mu_);
  size_t next_stage_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<absl::Time> arrival_ ABSL_GUARDED_BY(mu_), release_ ABSL_GUARDED_BY(mu_);
  std::deque<CopySpan> copies_ ABSL_GUARDED_BY(mu_);  // not told by Finished yet
  std::atomic<int64_t> wrong_reads_{0};
};

// Bytes that a simulated device reads in place, as late as a disk of the given rate would have
// them.
class SimChunkSource : public ChunkSource {
 public:
  // `rate` 0: at once.
  SimChunkSource(SimStreamDevice* device, Bandwidth rate) : device_(device), rate_(rate) {}
  bool Request(const StreamChunk& chunk) override;
  absl::StatusOr<HostChunk> Take(const StreamChunk& chunk, absl::Duration timeout) override;
  void Sent(int64_t copy) override {}
  void Copied(int64_t copies) override {}
  void Forget() override { requested_.clear(); }
  void Cancel() override {}
  // The chunk taken after `takes` more fails once.
  void FailAfter(int takes) { fail_after_ = takes; }

 private:
  SimStreamDevice* const device_;
  const Bandwidth rate_;
  absl::Time disk_free_;
  std::deque<const std::byte*> requested_;
  int fail_after_ = -1;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_SIM_STREAM_DEVICE_H_
