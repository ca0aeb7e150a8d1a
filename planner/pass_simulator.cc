#include "planner/pass_simulator.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <optional>

#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// The circular arena: pieces are taken in order and given back in order.
class Ring {
 public:
  explicit Ring(int64_t size) : size_(size) {}

  bool Take(int64_t bytes) {
    const std::optional<int64_t> at = PlaceFor(bytes);
    if (!at.has_value()) return false;
    pieces_.push_back({*at, *at + bytes});
    return true;
  }
  void GiveBack() { pieces_.pop_front(); }

 private:
  struct Piece {
    int64_t begin, end;
  };

  std::optional<int64_t> PlaceFor(int64_t bytes) const {
    if (pieces_.empty()) return bytes <= size_ ? std::optional<int64_t>(0) : std::nullopt;
    const int64_t tail = pieces_.front().begin, head = pieces_.back().end;
    if (pieces_.back().begin >= tail) {
      if (head + bytes <= size_) return head;
      return bytes <= tail ? std::optional<int64_t>(0) : std::nullopt;
    }
    return head + bytes <= tail ? std::optional<int64_t>(head) : std::nullopt;
  }

  const int64_t size_;
  std::deque<Piece> pieces_;
};

// Two activities, the steps and the copies, advanced from event to event.
class Simulation {
 public:
  Simulation(const std::vector<PassStep>& steps, const HostRates& rates, Bytes ring, int passes)
      : steps_(steps), rates_(rates), passes_(passes), ring_(ring.count()) {
    for (size_t i = 0; i < steps.size(); ++i) {
      if (steps[i].copied <= Bytes(0)) continue;
      MILLRACE_CHECK(steps[i].ring <= ring);
      streamed_.push_back(i);
    }
  }

  PassTimes Run() {
    while (static_cast<int>(times_.ends.size()) < passes_) {
      BeginWhatCan();
      Advance();
    }
    return std::move(times_);
  }

 private:
  const PassStep& step() const { return steps_[step_]; }

  void BeginWhatCan() {
    if (!copying_ && !streamed_.empty()) {
      const PassStep& next = steps_[streamed_[next_copy_ % streamed_.size()]];
      if (ring_.Take(next.ring.count())) {
        copying_ = true;
        copy_left_ = static_cast<double>(next.copied.count());
        copy_limit_ = next.copy_limit > 0 ? next.copy_limit : kNever;
      }
    }
    if (running_) return;
    if (step().copied > Bytes(0) && arrived_ == used_) return;  // its group is not here yet
    if (step().joins && beside_ != nullptr) return;
    running_ = true;
    fixed_left_ = step().fixed_seconds;
    MILLRACE_CHECK(beside_ == nullptr || !UsesCpu(step()));
    if (beside_ == nullptr) cpu_left_ = !step().cpu_beside && UsesCpu(step()) ? 1 : 0;
  }

  static bool UsesCpu(const PassStep& step) {
    return step.cpu_bytes > Bytes(0) || step.cpu_compute_seconds > 0;
  }

  // Seconds of the CPU's whole part at the present rates.
  double CpuSeconds(const PassStep& part) const {
    const double rate = copying_ ? rates_.cpu_shared : rates_.cpu_alone;
    const double read =
        part.cpu_bytes > Bytes(0) ? static_cast<double>(part.cpu_bytes.count()) / rate : 0;
    return std::max(read, part.cpu_compute_seconds);
  }

  // To the next end of the fixed part of a step, of a CPU part, or of a copy.
  void Advance() {
    const bool after = running_ && fixed_left_ <= 0 && cpu_left_ > 0;  // of the step that runs
    const bool on_cpu = after || beside_ != nullptr, fixed = running_ && !after;
    const double cpu_seconds = on_cpu ? CpuSeconds(after ? step() : *beside_) : 0;
    const double copy_rate = std::min(copy_limit_, on_cpu ? rates_.copy_shared : rates_.copy_alone);
    const double to_step = fixed ? fixed_left_ : kNever;
    const double to_cpu = on_cpu ? cpu_left_ * cpu_seconds : kNever;
    const double to_copy = copying_ ? copy_left_ / copy_rate : kNever;
    const double dt = std::min({to_step, to_cpu, to_copy});
    MILLRACE_CHECK(dt < kNever);
    Count(dt, fixed, on_cpu);
    if (fixed) fixed_left_ = to_step <= dt ? 0 : fixed_left_ - dt;
    if (on_cpu) cpu_left_ = to_cpu <= dt ? 0 : cpu_left_ - dt / cpu_seconds;
    if (copying_) copy_left_ -= dt * copy_rate;
    if (to_copy <= dt) EndCopy();
    if (beside_ != nullptr && cpu_left_ <= 0) beside_ = nullptr;
    if (running_ && fixed_left_ <= 0 && (beside_ != nullptr || cpu_left_ <= 0)) EndStep();
  }

  // A hop to the CPU is the CPU's time.
  void Count(double dt, bool fixed, bool on_cpu) {
    now_ += dt;
    if (copying_) times_.copy += dt;
    if (!running_ && !on_cpu) times_.waited_for_copy += dt;
    const bool hop = fixed && beside_ == nullptr && cpu_left_ > 0;
    if (on_cpu || hop) times_.cpu += dt;
    if (fixed && !hop) times_.gpu += dt;
  }

  void EndCopy() {
    copying_ = false;
    ++arrived_;
    ++next_copy_;
  }

  void EndStep() {
    running_ = false;
    if (step().cpu_beside) {
      beside_ = &step();
      cpu_left_ = 1;
    }
    if (step().copied > Bytes(0)) {
      ring_.GiveBack();
      ++used_;
    }
    if (++step_ < steps_.size()) return;
    step_ = 0;
    times_.ends.push_back(now_);
  }

  const std::vector<PassStep>& steps_;
  const HostRates rates_;
  const int passes_;
  Ring ring_;
  std::vector<size_t> streamed_;  // indices into steps_
  PassTimes times_;
  double now_ = 0;
  // The step under way.
  size_t step_ = 0;
  bool running_ = false;
  double fixed_left_ = 0;  // seconds
  double cpu_left_ = 0;    // share of the CPU's part
  const PassStep* beside_ = nullptr;  // whose CPU part is under way beside other steps
  // The copies: groups counted from the first pass on.
  bool copying_ = false;
  double copy_left_ = 0;  // bytes
  double copy_limit_ = kNever;
  size_t next_copy_ = 0, arrived_ = 0, used_ = 0;
};

}  // namespace

HostRates ShareHostMemory(Bandwidth link, Bandwidth dram, Bandwidth beside) {
  constexpr double kUnknown = 1e6;  // bytes per second
  HostRates rates;
  rates.cpu_alone = std::max(kUnknown, dram.bytes_per_second());
  const double together = beside > Bandwidth()
                              ? beside.bytes_per_second() + link.bytes_per_second()
                              : rates.cpu_alone * kDramTogether;
  rates.copy_alone = std::min(std::max(kUnknown, link.bytes_per_second()), together);
  rates.copy_shared = rates.copy_alone;
  rates.cpu_shared = rates.cpu_alone;
  if (rates.copy_alone + rates.cpu_alone <= together) return rates;
  rates.copy_shared =
      std::min(rates.copy_alone * kLinkShared, std::max(together / 2, together - rates.cpu_alone));
  rates.cpu_shared = std::min(rates.cpu_alone, together - rates.copy_shared);
  return rates;
}

PassTimes SimulatePasses(const std::vector<PassStep>& steps, const HostRates& rates, Bytes ring,
                         int passes) {
  MILLRACE_CHECK(!steps.empty());
  return Simulation(steps, rates, ring, passes).Run();
}

SteadyPass SimulateSteadyPass(const std::vector<PassStep>& steps, const HostRates& rates,
                              Bytes ring) {
  constexpr int kSettled = 2, kPasses = 10;
  const PassTimes first = SimulatePasses(steps, rates, ring, kSettled);
  const PassTimes all = SimulatePasses(steps, rates, ring, kPasses);
  const double seconds = all.ends.back() - first.ends.back();
  SteadyPass pass;
  pass.seconds = seconds / (kPasses - kSettled);
  if (seconds <= 0) return pass;
  pass.gpu_share = (all.gpu - first.gpu) / seconds;
  pass.cpu_share = (all.cpu - first.cpu) / seconds;
  pass.copy_share = (all.copy - first.copy) / seconds;
  return pass;
}

}  // namespace millrace
