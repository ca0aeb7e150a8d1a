// A cluster whose worker's memory went: the load is refused, or planned again with the budgets of
// now.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/planner/query_cluster.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

// Says that `free` is left of its GPU, and refuses plans that take more.
class ShrinkingWorker final : public DescribingWorker {
 public:
  grpc::Status Load(grpc::ServerContext*, const v1::LoadStagesRequest* request,
                    grpc::ServerWriter<v1::LoadStagesEvent>*) override {
    ++loads;
    for (const v1::LedgerTotal& total : request->plan().totals()) {
      if (total.memory() != "gpu0" || total.used() <= free.count()) continue;
      return {grpc::StatusCode::FAILED_PRECONDITION, "gpu0: the plan takes more than is free now"};
    }
    return grpc::Status::OK;
  }
  grpc::Status Unload(grpc::ServerContext*, const v1::UnloadStagesRequest*,
                      v1::UnloadStagesResponse*) override {
    return grpc::Status::OK;
  }
  grpc::Status Budgets(grpc::ServerContext*, const v1::BudgetsRequest*,
                       v1::BudgetsResponse* response) override {
    HostSpec now = host;
    now.devices[0].budget = std::min(now.devices[0].budget, free);
    *response->mutable_host() = ToProto(now);
    return grpc::Status::OK;
  }

  HostSpec host;
  Bytes free = 12_GiB;
  int loads = 0;
};

class ClusterReplanTest : public ::testing::Test {
 protected:
  ClusterReplanTest() {
    running_ = std::move(*StartServer("127.0.0.1:0", &worker_));
    worker_.host = DescribedDesktop(12_GiB).hosts.front();
    worker_.host.worker = WorkerId("w0");
    worker_.host.address = running_.address;
    EXPECT_TRUE(controller_.membership().Join(worker_.host, Epoch{}, absl::Now()).ok());
    request_.set_model("small");
    request_.mutable_options()->set_context(1024);
    request_.mutable_options()->set_max_pass_tokens(64);
  }
  ~ClusterReplanTest() override { running_.server->Shutdown(); }

  absl::StatusOr<ClusterController::LoadOutcome> Load() {
    return controller_.Load(request_, absl::Now() + absl::Seconds(30),
                            [this](const v1::LoadEvent& event) {
                              if (event.has_replanned()) replanned_.push_back(event.replanned());
                            });
  }

  ShrinkingWorker worker_;
  RunningServer running_;
  ClusterController controller_{absl::Seconds(60)};
  v1::LoadRequest request_;
  std::vector<std::string> replanned_;
};

TEST_F(ClusterReplanTest, APlanThatFitsLoadsAtOnce) {
  request_.set_replan(true);
  const auto outcome = Load();
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(worker_.loads, 1);
  EXPECT_TRUE(replanned_.empty());
}

TEST_F(ClusterReplanTest, WithoutReplanTheWorkersRefusalIsTheAnswer) {
  worker_.free = 3_GiB;
  const auto outcome = Load();
  EXPECT_EQ(outcome.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(outcome.status().message()), HasSubstr("more than is free now"));
  EXPECT_EQ(worker_.loads, 1);
}

TEST_F(ClusterReplanTest, BudgetsAreReadAgainAndThePlanIsMadeForThem) {
  worker_.free = 3_GiB;
  request_.set_replan(true);
  const auto outcome = Load();
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  ASSERT_NE(outcome->serving, nullptr);
  EXPECT_EQ(worker_.loads, 2);
  EXPECT_THAT(replanned_, testing::ElementsAre(HasSubstr("more than is free now")));
  for (const LedgerTotal& total : outcome->serving->plan.totals) {
    if (total.memory == "gpu0") {
      EXPECT_EQ(total.budget, 3_GiB);
    }
  }
  EXPECT_EQ(controller_.membership().Find(WorkerId("w0"))->host.devices[0].budget, 3_GiB);
}

TEST_F(ClusterReplanTest, WhereNothingFitsWhatIsFreeThatIsTheAnswer) {
  worker_.free = 1100_MiB;
  worker_.host.budget = 1_GiB;
  request_.set_replan(true);
  const auto outcome = Load();
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_TRUE(outcome->infeasible.has_value());
}

}  // namespace
}  // namespace millrace
