// A planner and workers as processes on loopback: right tokens, several clients, refusals, cancel.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>
#include <set>
#include <thread>

#include "absl/time/clock.h"
#include "proto/bytes.h"
#include "proto/grpc_status.h"
#include "proto/grpc_transport.h"
#include "tests/e2e/cluster_process.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr char kBudget[] = "38MiB";  // per worker: the demo model does not fit one

v1::LoadRequest DemoRequest(int slots = 1) {
  v1::LoadRequest request;
  request.mutable_options()->set_context(256);
  request.mutable_options()->set_slots(slots);
  return request;
}

std::set<std::string> WorkersOf(const v1::PlacementPlan& plan) {
  std::set<std::string> workers;
  for (const v1::Stage& stage : plan.stages()) workers.insert(stage.worker());
  return workers;
}

class ClusterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    goldens_ = ReadGoldens();
    if (goldens_.empty()) GTEST_SKIP() << "../shared/models/quill-7m-goldens.json is absent";
  }
  void TearDown() override {
    if (HasFailure()) std::fputs(cluster_.Logs().c_str(), stderr);
  }
  void Start(int workers, const std::string& budget = kBudget) {
    for (int i = 0; i < workers; ++i) cluster_.StartWorker("w" + std::to_string(i), budget);
    ASSERT_TRUE(cluster_.WaitForWorkers(workers));
  }
  v1::PlacementPlan LoadDemo(const v1::LoadRequest& request) {
    const absl::StatusOr<v1::LoadEvent> event = cluster_.Load(request);
    EXPECT_TRUE(event.ok()) << event.status();
    if (!event.ok()) return {};
    EXPECT_TRUE(event->has_loaded()) << event->DebugString();
    return event->loaded();
  }

  std::vector<GoldenCase> goldens_;
  TestCluster cluster_;
};

TEST_F(ClusterTest, TwoWorkersGiveTheGoldenTokens) {
  ASSERT_NO_FATAL_FAILURE(Start(2));
  const v1::PlacementPlan plan = LoadDemo(DemoRequest());
  EXPECT_EQ(WorkersOf(plan).size(), 2u) << "the budgets must force a split";
  for (const GoldenCase& golden : goldens_) {
    const Generated generated = cluster_.Generate(GreedyRequest(golden, 48));
    ASSERT_TRUE(generated.status.ok()) << generated.status;
    EXPECT_EQ(generated.tokens, golden.greedy) << golden.prompt;
    EXPECT_TRUE(generated.offsets_in_order);
    EXPECT_EQ(generated.summary.finish(), v1::FINISH_REASON_MAX_TOKENS);
  }
}

TEST_F(ClusterTest, WorkersStayWithinTheirBudgets) {
  ASSERT_NO_FATAL_FAILURE(Start(2));
  LoadDemo(DemoRequest(/*slots=*/2));
  for (const GoldenCase& golden : goldens_) cluster_.Generate(GreedyRequest(golden, 200));
  absl::SleepFor(absl::Seconds(1));  // a heartbeat later
  const v1::ClusterStatus status = cluster_.Status();
  for (const v1::MemberStatus& member : status.members()) {
    const Bytes resident(member.worker().resident_bytes());
    std::printf("[ resident ] %s: %s, overhead %s, budget %s\n", member.name().c_str(),
                FormatBytes(resident).c_str(),
                FormatBytes(Bytes(member.host().devices(0).overhead())).c_str(),
                FormatBytes(Bytes(member.host().budget())).c_str());
    EXPECT_LE(resident.count(), member.host().budget());
  }
}

TEST_F(ClusterTest, ThreeWorkersGiveTheGoldenTokensAndLogits) {
  ASSERT_NO_FATAL_FAILURE(Start(3, "27000KiB"));
  v1::LoadRequest request = DemoRequest();
  request.mutable_options()->set_max_pass_tokens(64);
  EXPECT_EQ(WorkersOf(LoadDemo(request)).size(), 3u) << "the budgets must force a split";
  for (const GoldenCase& golden : goldens_) {
    EXPECT_EQ(cluster_.Generate(GreedyRequest(golden, 48)).tokens, golden.greedy);
    v1::ScoreRequest score;
    score.set_kind(v1::ScoreRequest::KIND_LAST_LOGITS);
    score.mutable_tokens()->Add(golden.ids.begin(), golden.ids.end());
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(30));
    v1::ScoreResponse logits;
    const grpc::Status status = cluster_.stub().Score(&context, score, &logits);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_EQ(logits.values_size(), static_cast<int>(golden.last_logits.size()));
    for (int i = 0; i < logits.values_size(); ++i) {
      ASSERT_NEAR(logits.values(i), golden.last_logits[i], 0.02);
    }
  }
}

// Some stages follow each other inside a worker, some across: threads and streams in one chain.
TEST_F(ClusterTest, WorkersWithTwoDevicesEachGiveTheGoldenTokens) {
  for (const char* name : {"w0", "w1"}) {
    cluster_.StartWorker(name, "48MiB", {"--devices", "cpu:27500KiB,cpu:6MiB"});
  }
  ASSERT_TRUE(cluster_.WaitForWorkers(2));
  v1::LoadRequest request = DemoRequest();
  request.mutable_options()->set_max_pass_tokens(64);
  const v1::PlacementPlan plan = LoadDemo(request);
  EXPECT_EQ(WorkersOf(plan).size(), 2u);
  EXPECT_GT(plan.stages_size(), 2) << "the budgets must force a split inside a worker";
  for (const GoldenCase& golden : goldens_) {
    EXPECT_EQ(cluster_.Generate(GreedyRequest(golden, 48)).tokens, golden.greedy);
  }
}

TEST_F(ClusterTest, MoreClientsThanSlotsAllGetTheirTokens) {
  ASSERT_NO_FATAL_FAILURE(Start(2));
  LoadDemo(DemoRequest(/*slots=*/3));
  std::vector<std::thread> clients;
  std::vector<Generated> results(8);
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&, i] {
      results[i] = cluster_.Generate(GreedyRequest(goldens_[i % goldens_.size()], 48));
    });
  }
  for (std::thread& client : clients) client.join();
  for (int i = 0; i < 8; ++i) {
    EXPECT_TRUE(results[i].status.ok()) << results[i].status;
    EXPECT_EQ(results[i].tokens, goldens_[i % goldens_.size()].greedy);
  }
}

TEST_F(ClusterTest, AFullQueueSaysSo) {
  ASSERT_NO_FATAL_FAILURE(Start(2));
  v1::LoadRequest request = DemoRequest();
  request.set_max_queue(1);
  LoadDemo(request);
  std::vector<std::thread> clients;
  std::vector<Generated> results(6);
  for (int i = 0; i < 6; ++i) {
    clients.emplace_back(
        [&, i] { results[i] = cluster_.Generate(GreedyRequest(goldens_[0], 200)); });
  }
  for (std::thread& client : clients) client.join();
  int done = 0, refused = 0;
  for (const Generated& result : results) {
    done += result.status.ok();
    if (result.status.ok()) continue;
    EXPECT_EQ(result.status.code(), absl::StatusCode::kResourceExhausted) << result.status;
    EXPECT_THAT(std::string(result.status.message()), HasSubstr("queue"));
    ++refused;
  }
  EXPECT_GE(done, 2);
  EXPECT_GE(refused, 1);
}

TEST_F(ClusterTest, CancelEndsTheGenerationAndFreesItsSlot) {
  ASSERT_NO_FATAL_FAILURE(Start(2));
  LoadDemo(DemoRequest());
  v1::GenerateRequest request = GreedyRequest(goldens_[0], 240);
  request.set_request_id("to-be-cancelled");
  const Generated generated = cluster_.Generate(request, [&](int tokens) {
    if (tokens != 3) return;
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(5));
    v1::CancelRequest cancel;
    cancel.set_request_id("to-be-cancelled");
    v1::CancelResponse response;
    const grpc::Status status = cluster_.stub().Cancel(&context, cancel, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  });
  EXPECT_EQ(generated.status.code(), absl::StatusCode::kCancelled) << generated.status;
  EXPECT_LT(generated.tokens.size(), 240u);
  EXPECT_EQ(cluster_.Generate(GreedyRequest(goldens_[1], 48)).tokens, goldens_[1].greedy);
}

TEST_F(ClusterTest, AClientThatLeavesFreesItsSlot) {
  ASSERT_NO_FATAL_FAILURE(Start(2));
  LoadDemo(DemoRequest());
  {
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(30));
    const auto reader = cluster_.stub().Generate(&context, GreedyRequest(goldens_[0], 240));
    v1::GenerateEvent event;
    ASSERT_TRUE(reader->Read(&event));
    context.TryCancel();
    reader->Finish();
  }
  const auto idle = [](const v1::ClusterStatus& status) {
    int running = 0;
    for (const v1::MemberStatus& member : status.members()) {
      running += member.worker().engine().running();
    }
    return running == 0 && status.generations() == 0;
  };
  EXPECT_TRUE(cluster_.WaitFor(idle, absl::Seconds(5)));
  EXPECT_EQ(cluster_.Generate(GreedyRequest(goldens_[1], 48)).tokens, goldens_[1].greedy);
}

TEST_F(ClusterTest, NothingLoadedSaysHowToLoad) {
  ASSERT_NO_FATAL_FAILURE(Start(1));
  const Generated generated = cluster_.Generate(GreedyRequest(goldens_[0], 4));
  EXPECT_EQ(generated.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(generated.status.message()), HasSubstr("load"));
}

TEST_F(ClusterTest, BudgetsTooSmallAreRefusedClearly) {
  ASSERT_NO_FATAL_FAILURE(Start(1, "28MiB"));
  const absl::StatusOr<v1::LoadEvent> event = cluster_.Load(DemoRequest());
  ASSERT_TRUE(event.ok()) << event.status();
  ASSERT_TRUE(event->has_infeasible()) << event->DebugString();
  EXPECT_FALSE(event->infeasible().summary().empty());
  EXPECT_EQ(cluster_.Status().state(), "empty");
}

TEST_F(ClusterTest, MalformedRequestsAreRefusedByField) {
  ASSERT_NO_FATAL_FAILURE(Start(2));
  LoadDemo(DemoRequest());
  v1::GenerateRequest empty;
  Generated generated = cluster_.Generate(empty);
  EXPECT_EQ(generated.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(generated.status.message()), HasSubstr("prompt"));
  v1::GenerateRequest out_of_range = GreedyRequest(goldens_[0], 4);
  out_of_range.add_tokens(1 << 30);
  generated = cluster_.Generate(out_of_range);
  EXPECT_EQ(generated.status.code(), absl::StatusCode::kInvalidArgument) << generated.status;
  v1::GenerateRequest too_long = GreedyRequest(goldens_[0], 4);
  for (int i = 0; i < 300; ++i) too_long.add_tokens(5);
  generated = cluster_.Generate(too_long);
  EXPECT_EQ(generated.status.code(), absl::StatusCode::kInvalidArgument) << generated.status;
  v1::LoadRequest bad_options = DemoRequest();
  bad_options.mutable_options()->set_context(-5);
  EXPECT_THAT(std::string(cluster_.Load(bad_options).status().message()), HasSubstr("context"));
  v1::LoadRequest no_model = DemoRequest();
  no_model.set_model("/nowhere/model.gguf");
  EXPECT_EQ(cluster_.Load(no_model).status().code(), absl::StatusCode::kNotFound);
  v1::LoadRequest bad_plan;
  bad_plan.mutable_plan()->set_format_version(99);
  EXPECT_THAT(std::string(cluster_.Load(bad_plan).status().message()), HasSubstr("version 99"));
  EXPECT_EQ(cluster_.Generate(GreedyRequest(goldens_[0], 48)).tokens, goldens_[0].greedy);
}

TEST_F(ClusterTest, ASecondWorkerOfTheSameNameIsRefused) {
  ASSERT_NO_FATAL_FAILURE(Start(1));
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(5));
  const auto stream = cluster_.stub().Session(&context);
  v1::SessionRequest request;
  v1::RegisterWorker& hello = *request.mutable_register_();
  hello.set_protocol_version(1);
  *hello.mutable_host() = cluster_.Status().members(0).host();
  stream->Write(request);
  v1::SessionResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::ALREADY_EXISTS);
}

TEST_F(ClusterTest, AnotherProtocolVersionIsRefusedWithBothNamed) {
  ASSERT_NO_FATAL_FAILURE(Start(1));
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(5));
  const auto stream = cluster_.stub().Session(&context);
  v1::SessionRequest request;
  request.mutable_register_()->set_protocol_version(77);
  stream->Write(request);
  v1::SessionResponse response;
  EXPECT_FALSE(stream->Read(&response));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("version 77"));
  EXPECT_THAT(status.error_message(), HasSubstr("version 1"));
}

TEST_F(ClusterTest, HealthSaysServing) {
  ASSERT_NO_FATAL_FAILURE(Start(1));
  EXPECT_EQ(Health(cluster_.planner_address(), ""), 1);
  EXPECT_EQ(Health(cluster_.planner_address(), "millrace.v1.PlannerService"), 1);
  const std::string worker = cluster_.Status().members(0).host().address();
  EXPECT_EQ(Health(worker, "millrace.v1.WorkerService"), 1);
  cluster_.planner().Signal(SIGKILL);  // a worker without a planner is up, but serves nobody
  cluster_.planner().Wait(absl::Seconds(5));
  const absl::Time give_up = absl::Now() + absl::Seconds(5);
  while (Health(worker, "millrace.v1.WorkerService") != 2 && absl::Now() < give_up) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_EQ(Health(worker, "millrace.v1.WorkerService"), 2);
  EXPECT_EQ(Health(worker, ""), 1);
}

TEST_F(ClusterTest, SigtermEndsEveryProcessWithZero) {
  ASSERT_NO_FATAL_FAILURE(Start(2));
  LoadDemo(DemoRequest());
  cluster_.worker("w1").Signal(SIGTERM);
  EXPECT_EQ(cluster_.worker("w1").Wait(absl::Seconds(6)), 0);
  EXPECT_TRUE(cluster_.WaitForWorkers(1));  // it left: no ghost stays
  EXPECT_EQ(cluster_.Status().members_size(), 1);
  cluster_.planner().Signal(SIGTERM);
  EXPECT_EQ(cluster_.planner().Wait(absl::Seconds(6)), 0);
  cluster_.worker("w0").Signal(SIGTERM);
  EXPECT_EQ(cluster_.worker("w0").Wait(absl::Seconds(6)), 0);
}

}  // namespace
}  // namespace millrace
