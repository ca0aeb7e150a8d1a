#include "worker/batch_scheduler.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace millrace {
namespace {

std::shared_ptr<Session> LogitsOf(int tokens) {
  auto s = std::make_shared<Session>(Session::Kind::kLogits, nullptr, std::vector<std::string>());
  s->tokens.assign(static_cast<size_t>(tokens), 1);
  return s;
}

EngineOptions Options(int slots, int room, int queue) {
  EngineOptions o;
  o.slots = slots;
  o.context = 64;
  o.max_pass_tokens = room;
  o.max_queue = queue;
  return o;
}

TEST(BatchSchedulerTest, PromptsShareThePassAndAskForTheirLastRowOnce) {
  BatchScheduler scheduler(Options(2, 8, 4), nullptr);
  ASSERT_TRUE(scheduler.Add(LogitsOf(20)).ok());
  ASSERT_TRUE(scheduler.Add(LogitsOf(4)).ok());
  Pass pass;
  size_t tokens = 0, outputs = 0, finished = 0;
  for (int i = 0; i < 10 && scheduler.NextBatch(absl::UnixEpoch(), pass); ++i) {
    EXPECT_LE(pass.tokens.size(), 8u);
    if (i == 0) {
      EXPECT_EQ(pass.segments.size(), 2u);
    }
    tokens += pass.tokens.size();
    outputs += pass.outputs.size();
    PassResult result;
    result.outputs.resize(pass.outputs.size());
    finished += scheduler.Complete(pass, std::move(result), absl::UnixEpoch()).size();
  }
  EXPECT_EQ(tokens, 24u);
  EXPECT_EQ(outputs, 2u);
  EXPECT_EQ(finished, 2u);
  EXPECT_TRUE(scheduler.idle());
}

TEST(BatchSchedulerTest, FullQueueRefusesAndAFailedPassFreesTheSlot) {
  BatchScheduler scheduler(Options(1, 8, 1), nullptr);
  Pass pass;
  ASSERT_TRUE(scheduler.Add(LogitsOf(3)).ok());
  ASSERT_TRUE(scheduler.NextBatch(absl::UnixEpoch(), pass));
  ASSERT_TRUE(scheduler.Add(LogitsOf(3)).ok());
  EXPECT_EQ(scheduler.Add(LogitsOf(3)).code(), absl::StatusCode::kResourceExhausted);
  const auto failed = scheduler.Fail(absl::UnavailableError("link"));
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0]->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(scheduler.NextBatch(absl::UnixEpoch(), pass));
}

// Requests that come before the first pass used to fill the queue although a slot was free.
TEST(BatchSchedulerTest, FreeSlotsDoNotCountAgainstTheQueue) {
  BatchScheduler scheduler(Options(2, 8, 1), nullptr);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(scheduler.Add(LogitsOf(3)).ok()) << i;
  EXPECT_EQ(scheduler.Add(LogitsOf(3)).code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace millrace
