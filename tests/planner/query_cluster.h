// A planner in this process, and workers that are only there to be asked about a model.
#ifndef MILLRACE_TESTS_PLANNER_QUERY_CLUSTER_H_
#define MILLRACE_TESTS_PLANNER_QUERY_CLUSTER_H_

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "planner/planner_service.h"
#include "proto/convert.h"
#include "proto/grpc_transport.h"
#include "proto/protocol_version.h"
#include "tests/planner/described.h"

namespace millrace {

// Describes SmallLlama, or the spec it is sent, with made-up activations.
class DescribingWorker : public v1::WorkerService::Service {
 public:
  grpc::Status DescribeModel(grpc::ServerContext*, const v1::DescribeModelRequest* request,
                             v1::DescribeModelResponse* response) override {
    ++asked;
    if (request->model() == "no-such") {
      return {grpc::StatusCode::NOT_FOUND, "no-such: is not on this worker"};
    }
    *response->mutable_model() = request->has_spec() ? request->spec() : ToProto(SmallLlama());
    v1::PlanOptions& options = *response->mutable_options();
    options = request->options();
    if (options.context() == 0) options.set_context(4096);
    if (options.slots() == 0) options.set_slots(1);
    if (options.kv_type() == v1::DTYPE_UNSPECIFIED) options.set_kv_type(v1::DTYPE_F16);
    if (options.expected_prompt_tokens() == 0) options.set_expected_prompt_tokens(512);
    const PassActivations needs =
        MadeUpActivations(options.max_pass_tokens(), request->machine().direct_products());
    *response->mutable_activations() = ToProto(needs.cpu);
    *response->mutable_gpu_activations() = ToProto(needs.gpu);
    *response->mutable_host_route_activations() = ToProto(needs.host_route);
    return grpc::Status::OK;
  }

  std::atomic<int> asked = 0;
};

// Registered from its construction until Leave or its end.
class RegisteredWorker {
 public:
  RegisteredWorker(const std::string& planner, const std::string& name, HostSpec host)
      : stub_(v1::PlannerService::NewStub(MakeChannel(planner))) {
    running_ = std::move(*StartServer("127.0.0.1:0", &service_));
    host.worker = WorkerId(name);
    host.address = running_.address;
    thread_ = std::thread([this, host] { Hold(host); });
    registered_.WaitForNotification();
  }
  ~RegisteredWorker() {
    Leave();
    running_.server->Shutdown();
  }

  void Leave() {
    if (!thread_.joinable()) return;
    leave_.Notify();
    thread_.join();
  }
  int asked() const { return service_.asked; }

 private:
  void Hold(const HostSpec& host) {
    grpc::ClientContext context;
    const auto stream = stub_->Session(&context);
    v1::SessionRequest request;
    request.mutable_register_()->set_protocol_version(kProtocolVersion);
    *request.mutable_register_()->mutable_host() = ToProto(host);
    v1::SessionResponse response;
    EXPECT_TRUE(stream->Write(request) && stream->Read(&response) && response.has_registered());
    registered_.Notify();
    request.mutable_heartbeat();
    while (!leave_.WaitForNotificationWithTimeout(absl::Milliseconds(50))) {
      if (!stream->Write(request) || !stream->Read(&response)) break;
    }
    request.mutable_leave();
    stream->Write(request);
    stream->WritesDone();
    stream->Finish();
  }

  DescribingWorker service_;
  RunningServer running_;
  const std::unique_ptr<v1::PlannerService::Stub> stub_;
  absl::Notification registered_, leave_;
  std::thread thread_;
};

class QueryCluster {
 public:
  QueryCluster() : service_(PlannerOptions{"test"}) {
    running_ = std::move(*StartServer("127.0.0.1:0", &service_));
    stub_ = v1::PlannerService::NewStub(MakeChannel(running_.address));
  }
  ~QueryCluster() {
    service_.Stop();
    running_.server->Shutdown(absl::ToChronoTime(absl::Now() + absl::Seconds(2)));
  }

  v1::PlannerService::Stub& stub() { return *stub_; }
  const std::string& address() const { return running_.address; }
  void Stop() { service_.Stop(); }

 private:
  PlannerService service_;
  RunningServer running_;
  std::unique_ptr<v1::PlannerService::Stub> stub_;
};

// The question of MadeUpQuery as a message, all told.
inline v1::PlanRequest WholeRequest(const ModelSpec& model, const ClusterSpec& cluster, int context,
                                    int max_pass_tokens) {
  v1::PlanRequest request;
  request.set_model("small");
  request.mutable_options()->set_context(context);
  request.mutable_options()->set_max_pass_tokens(max_pass_tokens);
  *request.mutable_spec() = ToProto(model);
  *request.mutable_cluster() = ToProto(cluster);
  for (int tokens : PassSizesAsked(max_pass_tokens)) {
    for (bool direct : {false, true}) {
      const PassActivations needs = MadeUpActivations(tokens, direct);
      v1::PassActivations& out = *request.add_activations();
      out.set_max_pass_tokens(tokens);
      out.set_direct_products(direct);
      *out.mutable_cpu() = ToProto(needs.cpu);
      *out.mutable_gpu() = ToProto(needs.gpu);
      *out.mutable_host_route() = ToProto(needs.host_route);
    }
  }
  return request;
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_PLANNER_QUERY_CLUSTER_H_
