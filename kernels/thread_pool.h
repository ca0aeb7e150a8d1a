// ThreadPool: runs one parallel loop at a time over a fixed set of threads, the caller included.
//
// 1. A pool of N threads starts N - 1; the calling thread is the N-th. Nothing is pinned.
// 2. ParallelFor(n, grain, f) calls f(begin, end, thread) until [0, n) is covered, each index once,
//    chunks of at most `grain` handed out dynamically; it returns when all are done. `thread` is in
//    [0, size()), stable within one call, so per-thread scratch may be indexed by it.
//    ParallelGuided is the same with long contiguous runs first: each thread takes half of its fair
//    share of what is left, so that it streams through memory, and short runs even out the end.
// 3. Workers spin for `linger` after a loop (decode issues hundreds of short loops per token), then
//    sleep: an idle pool uses no CPU.
// 4. ParallelFor and ParallelGuided are called by one thread at a time (the device's owner) and do not nest.
// 5. f must not throw.
#ifndef MILLRACE_KERNELS_THREAD_POOL_H_
#define MILLRACE_KERNELS_THREAD_POOL_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"

namespace millrace {

class ThreadPool {
 public:
  // Longer than the gap between two ops of one pass, far shorter than that between two requests.
  static constexpr absl::Duration kLinger = absl::Microseconds(100);

  explicit ThreadPool(int threads, absl::Duration linger = kLinger);  // clamped to at least 1
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;
  void ParallelFor(int64_t n, int64_t grain,
                   absl::FunctionRef<void(int64_t begin, int64_t end, int thread)> f);
  void ParallelGuided(int64_t n,
                      absl::FunctionRef<void(int64_t begin, int64_t end, int thread)> f);

 private:
  // grain 0: guided.
  void Run(int64_t n, int64_t grain, absl::FunctionRef<void(int64_t, int64_t, int)> f);
  struct State;
  std::unique_ptr<State> state_;
};

// Threads this process may really use: the affinity mask and the cgroup CPU quota, at least 1.
int UsableThreads();

}  // namespace millrace

#endif  // MILLRACE_KERNELS_THREAD_POOL_H_
