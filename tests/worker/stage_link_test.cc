// The gRPC stage link against its contract (worker/link/stage_link.h): a server with a fake stage
// behind it, in this process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "millrace/v1/worker.grpc.pb.h"
#include "proto/grpc_status.h"
#include "proto/grpc_transport.h"
#include "worker/link/grpc_link.h"
#include "worker/link/stage_server.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr int kCols = 1500;  // several chunks for a few hundred rows

// Answers row r of output i with the sum of that row; long logits when asked.
class FakeStage : public StageRunner {
 public:
  absl::StatusOr<PassResult> Run(const Pass& pass, const HiddenStates& given,
                                 absl::Time) override {
    const FloatView hidden = given.rows;
    if (fail_next_.exchange(false)) return absl::InvalidArgumentError("slot 99 does not exist");
    if (slow_) hold_.WaitForNotificationWithTimeout(absl::Seconds(5));
    PassResult result;
    for (const OutputRequest& output : pass.outputs) {
      RowOutput row;
      for (int64_t c = 0; c < hidden.cols; ++c) row.log_prob += hidden.row(output.row)[c];
      row.token = pass.tokens[output.row];
      if (output.kind == OutputRequest::Kind::kLogits) row.logits.assign(700'000, row.log_prob);
      result.outputs.push_back(std::move(row));
    }
    result.stage_compute = {absl::Milliseconds(3)};
    return result;
  }
  void Cancel() override {
    if (slow_ && !hold_.HasBeenNotified()) hold_.Notify();
  }
  int stage() const override { return 1; }
  Bytes resident_bytes() const override { return 1_MiB; }

  std::atomic<bool> fail_next_{false};
  bool slow_ = false;
  absl::Notification hold_;
};

class OneStageService : public v1::WorkerService::Service {
 public:
  explicit OneStageService(StageServer* server) : server_(server) {}
  grpc::Status RunStage(grpc::ServerContext* context, StageServerStream* stream) override {
    v1::StageRequest request;
    if (!stream->Read(&request) || request.open().epoch() != 5) {
      return ToGrpcStatus(absl::FailedPreconditionError("it runs epoch 5"));
    }
    return ToGrpcStatus(server_->Serve(context, stream));
  }

 private:
  StageServer* server_;
};

class StageLinkTest : public ::testing::Test {
 protected:
  void Start(bool slow = false) {
    auto stage = std::make_unique<FakeStage>();
    stage_ = stage.get();
    stage_->slow_ = slow;
    server_ = std::make_unique<StageServer>(std::move(stage), Epoch{5}, kCols, kCols * 1024);
    service_ = std::make_unique<OneStageService>(server_.get());
    running_ = *StartServer("127.0.0.1:0", service_.get(), 16);
  }
  void TearDown() override {
    link_.reset();
    if (server_ != nullptr) server_->Stop();
    if (running_.server != nullptr) running_.server->Shutdown(absl::ToChronoTime(absl::Now()));
  }
  StageLink& Link(Epoch epoch = Epoch{5}) {
    link_ = MakeGrpcLink({WorkerId("w0"), WorkerId("w1"), running_.address, 1, epoch});
    return *link_;
  }
  static Pass PassOf(int rows, Epoch epoch = Epoch{5}) {
    Pass pass;
    pass.id = 3;
    pass.epoch = epoch;
    for (int i = 0; i < rows; ++i) pass.tokens.push_back(i * 2);
    pass.segments = {{0, 0, rows}};
    return pass;
  }
  absl::StatusOr<PassResult> Forward(StageLink& link, const Pass& pass,
                                     absl::Duration timeout = absl::Seconds(10)) {
    hidden_.resize(pass.tokens.size() * kCols);
    for (size_t i = 0; i < hidden_.size(); ++i) {
      hidden_[i] = static_cast<float>(i / kCols) + (i % kCols == 0 ? 0.5f : 0.0f);
    }
    return link.Forward(pass,
                        FloatView(hidden_.data(), static_cast<int64_t>(pass.tokens.size()), kCols),
                        absl::Now() + timeout);
  }

  FakeStage* stage_ = nullptr;
  std::unique_ptr<StageServer> server_;
  std::unique_ptr<OneStageService> service_;
  RunningServer running_;
  std::unique_ptr<StageLink> link_;
  std::vector<float> hidden_;
};

TEST_F(StageLinkTest, CarriesLargePassesAndLongLogitsBothWays) {
  Start();
  Pass pass = PassOf(700);  // 4.2 MB of hidden states: over the message limit
  OutputRequest last, logits;
  last.row = 699;
  logits.kind = OutputRequest::Kind::kLogits;
  logits.row = 2;
  pass.outputs = {last, logits, logits};
  StageLink& link = Link();
  for (int round = 0; round < 3; ++round) {
    const absl::StatusOr<PassResult> result = Forward(link, pass);
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->outputs.size(), 3u);
    EXPECT_EQ(result->outputs[0].token, 1398);
    EXPECT_FLOAT_EQ(result->outputs[0].log_prob, 699.0f * kCols + 0.5f);
    ASSERT_EQ(result->outputs[2].logits.size(), 700'000u);
    EXPECT_FLOAT_EQ(result->outputs[2].logits.back(), 2.0f * kCols + 0.5f);
    EXPECT_EQ(result->stage_compute, std::vector<absl::Duration>{absl::Milliseconds(3)});
  }
  EXPECT_EQ(server_->passes(), 3);
}

TEST_F(StageLinkTest, AFailedPassLeavesTheLinkUsable) {
  Start();
  StageLink& link = Link();
  stage_->fail_next_ = true;
  const absl::Status failed = Forward(link, PassOf(1)).status();
  EXPECT_EQ(failed.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(failed.message()), HasSubstr("slot 99"));
  EXPECT_TRUE(Forward(link, PassOf(1)).ok());
}

TEST_F(StageLinkTest, AnotherEpochIsRefused) {
  Start();
  EXPECT_EQ(Forward(Link(Epoch{4}), PassOf(1)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Forward(Link(), PassOf(1, Epoch{4})).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Forward(Link(), PassOf(1)).ok());
}

TEST_F(StageLinkTest, AMissingPeerIsUnavailableAndNamed) {
  Start();
  StageLink& link = Link();
  ASSERT_TRUE(Forward(link, PassOf(1)).ok());
  server_->Stop();
  running_.server->Shutdown(absl::ToChronoTime(absl::Now()));
  const absl::Status gone = Forward(link, PassOf(1)).status();
  EXPECT_EQ(gone.code(), absl::StatusCode::kUnavailable) << gone;
  EXPECT_THAT(std::string(gone.message()), HasSubstr("'w1'"));
  EXPECT_EQ(Forward(link, PassOf(1)).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(StageLinkTest, ADeadlineEndsTheWait) {
  Start(/*slow=*/true);
  const absl::Time start = absl::Now();
  const absl::Status late = Forward(Link(), PassOf(1), absl::Milliseconds(200)).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kUnavailable) << late;
  EXPECT_THAT(std::string(late.message()), HasSubstr("in time"));
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
}

TEST_F(StageLinkTest, CancelFromAnotherThreadEndsTheWait) {
  Start(/*slow=*/true);
  StageLink& link = Link();
  std::thread canceller([&] {
    absl::SleepFor(absl::Milliseconds(200));
    link.Cancel();
  });
  const absl::Time start = absl::Now();
  EXPECT_EQ(Forward(link, PassOf(1)).status().code(), absl::StatusCode::kCancelled);
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  canceller.join();
}

}  // namespace
}  // namespace millrace
