// WatchPlan of a planner in this process: it sees workers come, change and go, and ends with the
// call.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "planner/plan_report.h"
#include "tests/planner/query_cluster.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::WatchPlanRequest SmallQuestion() {
  v1::WatchPlanRequest request;
  request.mutable_question()->set_model("small");
  request.mutable_question()->mutable_options()->set_context(1024);
  request.mutable_question()->mutable_options()->set_max_pass_tokens(64);
  return request;
}

HostSpec Host(Bytes gpu) { return DescribedDesktop(gpu).hosts.front(); }

class Watcher {
 public:
  Watcher(QueryCluster& cluster, const v1::WatchPlanRequest& request) {
    SetTimeout(context_, absl::Seconds(60));
    reader_ = cluster.stub().WatchPlan(&context_, request);
  }
  // Nothing where the call has ended.
  std::optional<v1::WatchPlanEvent> Next() {
    v1::WatchPlanEvent event;
    if (!reader_->Read(&event)) return std::nullopt;
    return event;
  }
  grpc::Status Cancel() {
    context_.TryCancel();
    return Finish();
  }
  grpc::Status Finish() {
    while (Next().has_value()) {
    }
    return reader_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchPlanEvent>> reader_;
};

TEST(WatchPlanTest, SeesWorkersJoinAndLeaveAndEndsWithTheCall) {
  QueryCluster cluster;
  Watcher watcher(cluster, SmallQuestion());
  auto event = watcher.Next();
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->sequence(), 1);
  EXPECT_THAT(event->none(), HasSubstr("no worker is registered"));
  EXPECT_TRUE(event->workers().empty());

  auto w0 = std::make_unique<RegisteredWorker>(cluster.address(), "w0", Host(3_GiB));
  event = watcher.Next();
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->sequence(), 2);
  EXPECT_THAT(event->since(),
              ElementsAre(HasSubstr("worker 'w0' joined: 28.0 GiB, gpu0 3.00 GiB")));
  EXPECT_THAT(event->workers(), ElementsAre("w0"));
  ASSERT_TRUE(event->planned().has_plan()) << event->DebugString();
  EXPECT_FALSE(event->loaded());
  ClusterSpec one = DescribedDesktop(3_GiB);
  one.hosts[0].worker = WorkerId("w0");
  const auto local = Solve(*ProblemOn(one, MadeUpQuery(SmallLlama(), 1024, 64)));
  EXPECT_EQ(event->planned().text(), RenderPlanTable(*local->plan));

  RegisteredWorker w1(cluster.address(), "w1", Host(4_GiB));
  event = watcher.Next();
  ASSERT_TRUE(event.has_value());
  EXPECT_THAT(event->workers(), ElementsAre("w0", "w1"));
  EXPECT_EQ(event->planned().cluster().hosts_size(), 2);

  w0->Leave();
  event = watcher.Next();
  ASSERT_TRUE(event.has_value());
  EXPECT_THAT(event->since(), ElementsAre(HasSubstr("worker 'w0' is gone: it left")));
  EXPECT_THAT(event->workers(), ElementsAre("w1"));
  EXPECT_EQ(watcher.Cancel().error_code(), grpc::StatusCode::CANCELLED);
}

TEST(WatchPlanTest, SaysThatNothingIsLoaded) {
  QueryCluster cluster;
  Watcher watcher(cluster, {});
  const auto event = watcher.Next();
  ASSERT_TRUE(event.has_value());
  EXPECT_THAT(event->none(), HasSubstr("no model is loaded"));
}

TEST(WatchPlanTest, BadQuestionsEndTheCall) {
  QueryCluster cluster;
  v1::WatchPlanRequest request = SmallQuestion();
  request.mutable_question()->mutable_options()->set_slots(-1);
  const grpc::Status status = Watcher(cluster, request).Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("PlanOptions.slots"));
}

TEST(WatchPlanTest, APlannerThatStopsEndsItsWatches) {
  QueryCluster cluster;
  Watcher watcher(cluster, SmallQuestion());
  ASSERT_TRUE(watcher.Next().has_value());
  cluster.Stop();
  const grpc::Status status = watcher.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("stopping"));
}

// Everything that happens while an event is taken becomes the next one.
TEST(WatchPlanTest, AReaderThatIsSlowGetsOneEventForManyChanges) {
  ClusterController controller(absl::Seconds(60));
  PlanQueries queries(&controller);
  std::vector<v1::WatchPlanEvent> events;
  const QueryCall call = {absl::Now() + absl::Seconds(30), [] { return false; }};
  const absl::Status status = queries.Watch(call, {}, [&](const v1::WatchPlanEvent& event) {
    events.push_back(event);
    if (events.size() == 2) return false;
    for (int i = 0; i < 100; ++i) {
      HostSpec host = Host(3_GiB);
      host.worker = WorkerId("w" + std::to_string(i % 10));
      host.address = "there:1";
      const auto session = controller.membership().Join(host, Epoch{}, absl::Now());
      EXPECT_TRUE(session.ok()) << session.status();
      if (i < 90) controller.membership().End(host.worker, *session, std::nullopt);
    }
    return true;
  });
  EXPECT_TRUE(status.ok()) << status;
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].workers_size(), 10);
  EXPECT_EQ(events[1].since_size(), 10);
}

TEST(WatchPlanTest, BudgetsThatChangeAreSaid) {
  ClusterController controller(absl::Seconds(60));
  PlanQueries queries(&controller);
  HostSpec host = Host(3_GiB);
  host.worker = WorkerId("w0");
  host.address = "there:1";
  ASSERT_TRUE(controller.membership().Join(host, Epoch{}, absl::Now()).ok());
  std::vector<std::string> since;
  const QueryCall call = {absl::Now() + absl::Seconds(30), [] { return false; }};
  const absl::Status status = queries.Watch(call, {}, [&](const v1::WatchPlanEvent& event) {
    since.assign(event.since().begin(), event.since().end());
    if (event.sequence() == 2) return false;
    host.devices[0].budget = 2_GiB;
    controller.membership().SetHost(host);
    return true;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(since, ElementsAre("worker 'w0' may use 28.0 GiB, gpu0 2.00 GiB, before 28.0 GiB, "
                                 "gpu0 3.00 GiB"));
}

}  // namespace
}  // namespace millrace
