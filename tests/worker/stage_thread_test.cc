// Stages on threads of their own, against the contract in worker/stage_thread.h: fake stages whose
// every step the test controls.
#include "worker/stage_thread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "worker/local_stages.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

// Of the standard library, which ThreadSanitizer sees through.
class Gate {
 public:
  void Open() {
    const std::lock_guard lock(mu_);
    open_ = true;
    changed_.notify_all();
  }
  bool Wait(int milliseconds) {
    std::unique_lock lock(mu_);
    return changed_.wait_until(
        lock, std::chrono::system_clock::now() + std::chrono::milliseconds(milliseconds),
        [this] { return open_; });
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  bool open_ = false;
};

// What a test sees of a stage that lives on another thread.
struct Watch {
  std::atomic<bool> fail_next{false};
  std::atomic<int> runs{0};
  std::atomic<bool> other_thread{false};  // something was called by a thread that did not create it
  Gate may_take, took, may_finish, cancelled, destroyed;
};

// Copies the rows when may_take opens, answers with their sum when may_finish opens or it is
// cancelled. On top of the sum comes what the next stage makes of the rows, if there is one.
class FakeStage : public StageRunner {
 public:
  FakeStage(Watch* watch, std::unique_ptr<StageLink> next = nullptr)
      : watch_(watch), next_(std::move(next)), owner_(std::this_thread::get_id()) {}
  ~FakeStage() override {
    CheckThread();
    watch_->destroyed.Open();
  }

  absl::StatusOr<PassResult> Run(const Pass& pass, const HiddenStates& hidden,
                                 absl::Time deadline) override {
    CheckThread();
    ++watch_->runs;
    if (watch_->fail_next.exchange(false)) return absl::InvalidArgumentError("slot 99 does not exist");
    if (!watch_->may_take.Wait(10'000)) return absl::InternalError("test: may_take");
    std::vector<float> rows(hidden.rows.data, hidden.rows.data + hidden.rows.rows * hidden.rows.cols);
    if (hidden.taken) hidden.taken();
    watch_->took.Open();
    if (!watch_->may_finish.Wait(10'000)) return absl::InternalError("test: may_finish");
    PassResult result;
    if (next_ != nullptr) {
      const FloatView view(rows.data(), hidden.rows.rows, hidden.rows.cols);
      absl::StatusOr<PassResult> later = next_->Forward(pass, view, deadline);
      if (!later.ok()) return later;
      result = *std::move(later);
    }
    result.id = pass.id;
    result.outputs.resize(1);
    for (float v : rows) result.outputs[0].log_prob += v;
    result.stage_compute.insert(result.stage_compute.begin(), absl::Milliseconds(1));
    return result;
  }
  void Cancel() override {
    watch_->cancelled.Open();
    if (next_ != nullptr) next_->Cancel();
  }
  int stage() const override { return 1; }
  Bytes resident_bytes() const override { return 5_MiB; }

 private:
  void CheckThread() {
    if (std::this_thread::get_id() != owner_) watch_->other_thread = true;
  }
  Watch* const watch_;
  const std::unique_ptr<StageLink> next_;
  const std::thread::id owner_;
};

class StageThreadTest : public ::testing::Test {
 protected:
  // Stages that never make a test wait.
  StageThreadTest() {
    for (Watch* w : {&free_, &also_free_}) {
      w->may_take.Open();
      w->may_finish.Open();
    }
  }

  static std::unique_ptr<StageThread> Start(Watch* watch, std::unique_ptr<StageLink> next = nullptr,
                                            int stage = 1) {
    return std::make_unique<StageThread>(
        stage, [watch, next = std::move(next)]() mutable -> absl::StatusOr<std::unique_ptr<StageRunner>> {
          return std::make_unique<FakeStage>(watch, std::move(next));
        });
  }
  absl::StatusOr<PassResult> Run(StageThread& stage, uint64_t id = 1, float value = 1.0f,
                                 absl::Duration timeout = absl::Seconds(10)) {
    Pass pass;
    pass.id = id;
    pass.tokens = {1, 2, 3};
    std::vector<float> rows(12, value);
    const auto result = stage.Run(pass, FloatView(rows.data(), 3, 4), absl::Now() + timeout);
    std::fill(rows.begin(), rows.end(), 1e9f);  // may be overwritten once Run has returned
    return result;
  }

  Watch free_, also_free_, held_;
};

TEST_F(StageThreadTest, OneThreadCreatesRunsAndDestroysTheStage) {
  auto stage = Start(&free_);
  EXPECT_EQ(*stage->loading()->Wait(), 5_MiB);
  EXPECT_EQ(stage->resident_bytes(), 5_MiB);
  for (uint64_t id = 1; id <= 100; ++id) {
    const auto result = Run(*stage, id, static_cast<float>(id));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->id, id);
    EXPECT_EQ(result->outputs[0].log_prob, 12.0f * static_cast<float>(id));
  }
  EXPECT_EQ(free_.runs, 100);
  stage.reset();
  EXPECT_TRUE(free_.destroyed.Wait(0));
  EXPECT_FALSE(free_.other_thread);
}

TEST_F(StageThreadTest, StagesAreCreatedSideBySide) {
  Gate first, second;
  const auto make = [this](Gate* mine, Gate* other) {
    return std::make_unique<StageThread>(
        1, [=, this]() -> absl::StatusOr<std::unique_ptr<StageRunner>> {
          mine->Open();
          if (!other->Wait(10'000)) return absl::InternalError("alone");
          return std::make_unique<FakeStage>(&free_);
        });
  };
  const auto a = make(&first, &second), b = make(&second, &first);
  EXPECT_TRUE(a->loading()->Wait().ok());
  EXPECT_TRUE(b->loading()->Wait().ok());
}

TEST_F(StageThreadTest, AFailedLoadIsWhatEveryPassGets) {
  StageThread stage(1, []() -> absl::StatusOr<std::unique_ptr<StageRunner>> {
    return absl::ResourceExhaustedError("12 MiB are missing");
  });
  EXPECT_EQ(stage.loading()->Wait().status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(Run(stage).status().message()), HasSubstr("12 MiB"));
  EXPECT_EQ(Run(stage).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(StageThreadTest, AFailedPassLeavesTheStageUsable) {
  const auto stage = Start(&free_);
  free_.fail_next = true;
  const absl::Status failed = Run(*stage).status();
  EXPECT_EQ(failed.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(failed.message()), HasSubstr("slot 99"));
  EXPECT_TRUE(Run(*stage).ok());
}

TEST_F(StageThreadTest, ADeadlineEndsTheWaitAndTheNextPassIsItsOwn) {
  const auto stage = Start(&held_);
  held_.may_take.Open();
  const absl::Time begin = absl::Now();
  const absl::Status late = Run(*stage, 1, 1.0f, absl::Milliseconds(100)).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kUnavailable) << late;
  EXPECT_THAT(std::string(late.message()), HasSubstr("stage 1"));
  // The stage is still busy: the second pass is withdrawn and never runs.
  EXPECT_EQ(Run(*stage, 2, 2.0f, absl::Milliseconds(100)).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  held_.may_finish.Open();
  const auto result = Run(*stage, 3, 3.0f);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->id, 3u);
  EXPECT_EQ(result->outputs[0].log_prob, 36.0f);
  EXPECT_EQ(held_.runs, 2);
}

TEST_F(StageThreadTest, ALateStageIsNamed) {
  held_.may_take.Open();
  const auto first = Start(&free_, MakeLocalLink(Start(&held_, nullptr, 2)), 1);
  const absl::Status late = Run(*first, 1, 1.0f, absl::Milliseconds(300)).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kUnavailable) << late;
  EXPECT_THAT(std::string(late.message()), HasSubstr("stage 2"));
  held_.may_finish.Open();
}

TEST_F(StageThreadTest, RunDoesNotReturnWhileItsRowsAreBeingTaken) {
  const auto stage = Start(&held_);
  std::atomic<bool> returned{false};
  std::thread caller([&] {
    EXPECT_EQ(Run(*stage, 1, 1.0f, absl::Milliseconds(20)).status().code(),
              absl::StatusCode::kUnavailable);
    returned = true;
  });
  absl::SleepFor(absl::Milliseconds(200));
  EXPECT_FALSE(returned);
  held_.may_take.Open();
  caller.join();
  held_.may_finish.Open();
}

TEST_F(StageThreadTest, CancelEndsTheWaitThroughAllStages) {
  held_.may_take.Open();
  const auto first = Start(&free_, MakeLocalLink(Start(&held_)));
  std::thread canceller([&] {
    EXPECT_TRUE(held_.took.Wait(10'000));
    first->Cancel();
  });
  const absl::Time begin = absl::Now();
  EXPECT_EQ(Run(*first).status().code(), absl::StatusCode::kCancelled);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  EXPECT_TRUE(held_.cancelled.Wait(0));
  canceller.join();
  held_.may_finish.Open();
  EXPECT_TRUE(Run(*first).ok());
}

TEST_F(StageThreadTest, DestructionEndsPassesOfEveryStage) {
  held_.may_take.Open();
  auto first = Start(&free_, MakeLocalLink(Start(&held_)));
  EXPECT_EQ(Run(*first, 1, 1.0f, absl::Milliseconds(100)).status().code(),
            absl::StatusCode::kUnavailable);
  std::thread finisher([&] {
    EXPECT_TRUE(free_.cancelled.Wait(10'000));
    held_.may_finish.Open();
  });
  first.reset();
  finisher.join();
  EXPECT_TRUE(free_.destroyed.Wait(0));
  EXPECT_TRUE(held_.destroyed.Wait(0));
  EXPECT_FALSE(free_.other_thread || held_.other_thread);
}

TEST_F(StageThreadTest, DestructionWhileLoading) {
  for (int round = 0; round < 50; ++round) Start(&free_).reset();
}

// Whatever is cancelled or late: a pass that succeeds is the one that was asked for.
TEST_F(StageThreadTest, CancelsAndDeadlinesAtAnyMoment) {
  const auto first = Start(&free_, MakeLocalLink(Start(&also_free_)));
  std::atomic<bool> stop{false};
  std::thread canceller([&] {
    std::mt19937 rng(1);
    while (!stop) {
      absl::SleepFor(absl::Microseconds(rng() % 300));
      first->Cancel();
    }
  });
  std::mt19937 rng(2);
  int ok = 0;
  for (uint64_t id = 1; id <= 2000; ++id) {
    const auto timeout = id % 3 == 0 ? absl::Microseconds(rng() % 100) : absl::Seconds(10);
    const float value = static_cast<float>(id % 97);
    const auto result = Run(*first, id, value, timeout);
    if (!result.ok()) continue;
    ++ok;
    EXPECT_EQ(result->id, id);
    EXPECT_EQ(result->outputs[0].log_prob, 24.0f * value);  // of both stages
    EXPECT_EQ(result->stage_compute.size(), 2u);
  }
  stop = true;
  canceller.join();
  EXPECT_GT(ok, 0);
  EXPECT_FALSE(free_.other_thread || also_free_.other_thread);
}

}  // namespace
}  // namespace millrace
