#include "kernels/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace millrace {
namespace {

// Looks at the clock once in so many turns; what a caller waits for stragglers before it yields.
constexpr int kTurns = 64, kSpins = 2000;

inline void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

// A loop is published by storing its generation in `open`. A worker announces itself in `inside`
// before it touches the loop's fields and checks `open` again; the caller closes the loop and then
// waits until nobody is inside. So a worker that wakes late never delays the caller.
struct ThreadPool::State {
  int size = 1;
  absl::Duration linger;
  std::vector<std::thread> threads;

  std::atomic<uint64_t> open{0};  // generation of the loop that may be joined, 0 = none
  std::atomic<int> inside{0};
  std::atomic<int64_t> next{0};
  std::atomic<bool> stop{false};
  std::atomic<int> sleepers{0};
  std::mutex mutex;
  std::condition_variable wake;

  // Valid while open != 0; written by the caller only while nobody is inside.
  int64_t n = 0;
  int64_t grain = 1;  // 0: guided
  const absl::FunctionRef<void(int64_t, int64_t, int)>* body = nullptr;
  uint64_t generation = 0;  // caller's

  void RunGuided(int thread) {
    int64_t begin = next.load(std::memory_order_relaxed);
    while (begin < n) {
      const int64_t end = begin + std::max<int64_t>(1, (n - begin) / (2 * size));
      if (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
      (*body)(begin, end, thread);
      begin = next.load(std::memory_order_relaxed);
    }
  }

  void RunShare(int thread) {
    if (grain == 0) return RunGuided(thread);
    for (;;) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= n) return;
      (*body)(begin, std::min(begin + grain, n), thread);
    }
  }

  void WorkerLoop(int thread) {
    uint64_t seen = 0;
    while (!stop.load()) {
      const uint64_t generation_now = open.load();
      if (generation_now != 0 && generation_now != seen) {
        inside.fetch_add(1);
        if (open.load() == generation_now) RunShare(thread);
        seen = generation_now;
        inside.fetch_sub(1);
        continue;
      }
      WaitForWork(seen);
    }
  }

  bool HasWork(uint64_t seen) const {
    const uint64_t g = open.load();
    return stop.load() || (g != 0 && g != seen);
  }

  void WaitForWork(uint64_t seen) {
    const absl::Time sleep_at = absl::Now() + linger;
    do {
      for (int i = 0; i < kTurns; ++i) {
        if (HasWork(seen)) return;
        Pause();
      }
    } while (absl::Now() < sleep_at);
    std::unique_lock<std::mutex> lock(mutex);
    sleepers.fetch_add(1);
    wake.wait(lock, [&] { return HasWork(seen); });
    sleepers.fetch_sub(1);
  }

  void Wake() {
    if (sleepers.load() == 0) return;
    { std::lock_guard<std::mutex> lock(mutex); }
    wake.notify_all();
  }
};

ThreadPool::ThreadPool(int threads, absl::Duration linger) : state_(std::make_unique<State>()) {
  state_->size = std::max(1, threads);
  state_->linger = linger;
  for (int i = 1; i < state_->size; ++i) {
    state_->threads.emplace_back([s = state_.get(), i] { s->WorkerLoop(i); });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true);
  { std::lock_guard<std::mutex> lock(state_->mutex); }
  state_->wake.notify_all();
  for (std::thread& t : state_->threads) t.join();
}

int ThreadPool::size() const { return state_->size; }

void ThreadPool::ParallelFor(int64_t n, int64_t grain,
                             absl::FunctionRef<void(int64_t, int64_t, int)> f) {
  if (n <= 0) return;
  grain = std::max<int64_t>(1, grain);
  if (state_->size == 1 || n <= grain) {
    for (int64_t begin = 0; begin < n; begin += grain) f(begin, std::min(begin + grain, n), 0);
    return;
  }
  Run(n, grain, f);
}

void ThreadPool::ParallelGuided(int64_t n, absl::FunctionRef<void(int64_t, int64_t, int)> f) {
  if (n <= 0) return;
  if (state_->size == 1 || n == 1) return f(0, n, 0);
  Run(n, 0, f);
}

void ThreadPool::Run(int64_t n, int64_t grain, absl::FunctionRef<void(int64_t, int64_t, int)> f) {
  State& s = *state_;
  s.n = n;
  s.grain = grain;
  s.body = &f;
  s.next.store(0);
  s.open.store(++s.generation);
  s.Wake();
  s.RunShare(0);
  s.open.store(0);
  for (int spins = 0; s.inside.load() != 0; ++spins) {
    if (spins < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();  // the machine is oversubscribed: let the worker finish
    }
  }
}

namespace {

// CPUs the cgroup's quota allows, or a large number. v2: "cpu.max" holds "quota period" or "max".
int CgroupCpus() {
  constexpr int kUnlimited = 1 << 20;
  double quota = -1, period = 0;
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string word;
  if (v2 >> word >> period) {
    if (word == "max") return kUnlimited;
    quota = std::atof(word.c_str());
  } else {
    std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (!(q >> quota && p >> period)) return kUnlimited;
  }
  if (quota <= 0 || period <= 0) return kUnlimited;
  return std::max(1, static_cast<int>(quota / period + 0.5));
}

}  // namespace

int UsableThreads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cpus = CPU_COUNT(&set);
  return std::max(1, std::min(cpus, CgroupCpus()));
}

}  // namespace millrace
