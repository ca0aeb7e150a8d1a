// Plan, ExplainPlan, WhatIf and DiffPlans of a planner in this process: the answers of the
// functions that the command line calls, and refusals that name the field.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "planner/plan_diff.h"
#include "planner/plan_report.h"
#include "planner/query_messages.h"
#include "tests/planner/planned.h"
#include "tests/planner/query_cluster.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::Duration kCall = absl::Seconds(60);

struct Question {
  std::string name;
  ModelSpec model;
  ClusterSpec cluster;
  int context, max_pass_tokens;
};

std::vector<Question> Questions() {
  ClusterSpec cpu = DescribedDesktop();
  cpu.hosts[0].devices = {DescribedCpu(cpu.hosts[0])};
  return {{"Resident", SmallLlama(2), DescribedDesktop(12_GiB), 2048, 0},
          {"Offloaded", SmallLlama(), DescribedDesktop(3_GiB), 4096, 0},
          {"OnePassSize", SmallLlama(), DescribedDesktop(3_GiB), 4096, 256},
          {"Cpu", SmallLlama(), cpu, 1024, 0},
          {"DoesNotFit", SmallLlama(), DescribedDesktop(1_GiB), 4096, 0}};
}

class PlanServiceTest : public ::testing::TestWithParam<Question> {
 protected:
  PlanServiceTest() { SetTimeout(context_, kCall); }

  static PlacementProblem Local(const Question& q) {
    auto problem = ProblemOn(q.cluster, MadeUpQuery(q.model, q.context, q.max_pass_tokens));
    EXPECT_TRUE(problem.ok()) << problem.status();
    return *problem;
  }
  static v1::PlanRequest Request(const Question& q) {
    return WholeRequest(q.model, q.cluster, q.context, q.max_pass_tokens);
  }
  static std::string Wire(const google::protobuf::Message& message) {
    return message.SerializeAsString();
  }

  QueryCluster cluster_;
  grpc::ClientContext context_;
};

TEST_P(PlanServiceTest, PlanAnswersAsSolveDoes) {
  const SolveResult local = *Solve(Local(GetParam()));
  v1::PlanResponse response;
  const grpc::Status status = cluster_.stub().Plan(&context_, Request(GetParam()), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.has_plan(), local.plan.has_value());
  EXPECT_EQ(response.has_infeasible(), GetParam().name == "DoesNotFit");
  EXPECT_EQ(Wire(response),
            Wire(MakePlanResponse(
                local, GetParam().cluster,
                local.plan ? RenderPlanTable(*local.plan) : RenderInfeasible(*local.infeasible))));
}

TEST_P(PlanServiceTest, ExplainPlanAnswersAsExplainPlanDoes) {
  if (GetParam().name == "DoesNotFit") GTEST_SKIP() << "nothing to explain";
  const Question& q = GetParam();
  const PlacementProblem problem = Local(q);
  const PlacementPlan plan = Planned(problem);
  const auto text = ExplainPlan(MadeUpQuery(q.model, q.context, q.max_pass_tokens), problem, plan);
  ASSERT_TRUE(text.ok()) << text.status();
  v1::PlanResponse response;
  const grpc::Status status = cluster_.stub().ExplainPlan(&context_, Request(q), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.text(), *text);
  EXPECT_THAT(response.text(), HasSubstr("what more would buy"));
  EXPECT_EQ(Wire(response.plan()), Wire(ToProto(plan)));
}

TEST_P(PlanServiceTest, WhatIfAnswersAsBothPlansDo) {
  const Question& q = GetParam();
  MachineChange change;
  change.more_gpus = {FindGpuProfile("rtx-4090")};
  change.budgets = {{"host", 20_GiB}};
  change.dram = Bandwidth::GBPerSecond(90);
  const SolveResult as_is = *Solve(Local(q));
  const auto changed = SolveChanged(MadeUpQuery(q.model, q.context, q.max_pass_tokens), q.cluster,
                                    change, "--what-if");
  ASSERT_TRUE(changed.ok()) << changed.status();
  v1::WhatIfRequest request;
  *request.mutable_question() = Request(q);
  *request.mutable_change() = ToProto(change);
  v1::WhatIfResponse response;
  const grpc::Status status = cluster_.stub().WhatIf(&context_, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.text(), RenderSideBySide(as_is, changed->result));
  EXPECT_EQ(Wire(response.changed().plan()), Wire(ToProto(*changed->result.plan)));
  EXPECT_EQ(response.as_is().has_plan(), as_is.plan.has_value());
}

INSTANTIATE_TEST_SUITE_P(All, PlanServiceTest, ::testing::ValuesIn(Questions()),
                         [](const auto& question) { return question.param.name; });

class PlanServiceCallTest : public ::testing::Test {
 protected:
  PlanServiceCallTest() { SetTimeout(context_, kCall); }

  grpc::Status Ask(const v1::PlanRequest& request) {
    grpc::ClientContext context;
    SetTimeout(context, kCall);
    v1::PlanResponse response;
    return cluster_.stub().Plan(&context, request, &response);
  }
  static v1::PlanRequest Request() {
    return WholeRequest(SmallLlama(2), DescribedDesktop(12_GiB), 1024, 256);
  }

  QueryCluster cluster_;
  grpc::ClientContext context_;
};

TEST_F(PlanServiceCallTest, DiffPlansAnswersAsComparePlansDoes) {
  const auto at = [](Bytes gpu) {
    return Planned(*ProblemOn(DescribedDesktop(gpu), MadeUpQuery(SmallLlama(), 2048, 256)));
  };
  const PlacementPlan before = at(3_GiB), after = at(4_GiB);
  v1::DiffPlansRequest request;
  *request.mutable_before() = ToProto(before);
  *request.mutable_after() = ToProto(after);
  v1::DiffPlansResponse response;
  const grpc::Status status = cluster_.stub().DiffPlans(&context_, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  // What the other side reads is what was sent: the comparison is of the plans as messages.
  const PlanDiff local = ComparePlans(*FromProto(request.before()), *FromProto(request.after()));
  EXPECT_FALSE(response.same());
  EXPECT_EQ(response.text(), RenderPlanDiff(local));
  EXPECT_EQ(RenderPlanDiff(FromProto(response)), RenderPlanDiff(local));
  request.mutable_after()->mutable_stages(0)->set_end_block(0);
  grpc::ClientContext again;
  SetTimeout(again, kCall);
  const grpc::Status refused = cluster_.stub().DiffPlans(&again, request, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("DiffPlansRequest.after"));
}

TEST_F(PlanServiceCallTest, MalformedQuestionsAreRefusedByField) {
  const std::vector<std::pair<std::string, std::function<void(v1::PlanRequest&)>>> cases = {
      {"PlanRequest.model", [](auto& r) { r.set_model(std::string(5000, 'x')); }},
      {"PlanOptions.context", [](auto& r) { r.mutable_options()->set_context(-1); }},
      {"PlanOptions.context x slots",
       [](auto& r) {
         r.mutable_options()->set_context(1 << 26);
         r.mutable_options()->set_slots(1 << 16);
       }},
      {"PlanOptions.slots", [](auto& r) { r.mutable_options()->set_slots(1 << 20); }},
      {"PlanOptions.kv_type", [](auto& r) { r.mutable_options()->set_kv_type(v1::DType(99)); }},
      {"PlanOptions.routes", [](auto& r) { r.mutable_options()->set_routes(v1::RoutePolicy(9)); }},
      {"PlanOptions.pins",
       [](auto& r) {
         for (int i = 0; i < 1000; ++i) r.mutable_options()->add_pins();
       }},
      {"PlanOptions.pins.pattern", [](auto& r) { r.mutable_options()->add_pins(); }},
      {"ModelSpec.tensors[3].size",
       [](auto& r) { r.mutable_spec()->mutable_tensors(3)->set_size(1); }},
      {"ModelSpec.tensors[2].role",
       [](auto& r) { r.mutable_spec()->mutable_tensors(2)->set_role(v1::TensorRole(77)); }},
      {"ModelSpec.rope.dims", [](auto& r) { r.mutable_spec()->mutable_rope()->set_dims(-4); }},
      {"ClusterSpec.hosts", [](auto& r) { r.mutable_cluster()->clear_hosts(); }},
      {"hosts[0].devices[0].budget",
       [](auto& r) {
         r.mutable_cluster()->mutable_hosts(0)->mutable_devices(0)->set_budget(int64_t{1} << 60);
       }},
      {"hosts[0].devices[0].h2d_bandwidth",
       [](auto& r) {
         r.mutable_cluster()->mutable_hosts(0)->mutable_devices(0)->set_h2d_bandwidth(-5);
       }},
      {"PlanRequest.activations", [](auto& r) { r.clear_activations(); }},
      {"PlanRequest.activations: none for passes of up to 256 tokens with direct_products true",
       [](auto& r) { r.mutable_activations()->RemoveLast(); }},
      {"PlanRequest.activations[0].gpu",
       [](auto& r) { r.mutable_activations(0)->mutable_gpu()->set_body(-1); }},
      {"PlanRequest.activations[1].max_pass_tokens",
       [](auto& r) { r.mutable_activations(1)->set_max_pass_tokens(0); }},
  };
  ASSERT_TRUE(Ask(Request()).ok()) << Ask(Request()).error_message();
  for (const auto& [field, damage] : cases) {
    v1::PlanRequest request = Request();
    damage(request);
    const grpc::Status status = Ask(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << field;
    EXPECT_THAT(status.error_message(), HasSubstr(field));
  }
}

TEST_F(PlanServiceCallTest, MalformedChangesAreRefusedByField) {
  const std::vector<std::pair<std::string, std::function<void(v1::MachineChange&)>>> cases = {
      {"MachineChange.add_gpus: no card 'rtx-9'; there is rtx-",
       [](auto& c) { c.add_add_gpus("rtx-9"); }},
      {"MachineChange.add_gpus",
       [](auto& c) {
         for (int i = 0; i < 100; ++i) c.add_add_gpus("rtx-3090");
       }},
      {"MachineChange.budgets[0].bytes", [](auto& c) { c.add_budgets()->set_memory("gpu0"); }},
      {"MachineChange.budgets[0].memory", [](auto& c) { c.add_budgets()->set_bytes(5); }},
      {"MachineChange.link", [](auto& c) { c.set_link(-3); }},
      {"MachineChange.dram", [](auto& c) { c.set_dram(1e-200); }},
      {"WhatIfRequest.change: no memory 'gpu7'",
       [](auto& c) {
         c.add_budgets()->set_memory("gpu7");
         c.mutable_budgets(0)->set_bytes(1 << 30);
       }},
  };
  for (const auto& [field, damage] : cases) {
    v1::WhatIfRequest request;
    *request.mutable_question() = Request();
    damage(*request.mutable_change());
    grpc::ClientContext context;
    SetTimeout(context, kCall);
    v1::WhatIfResponse response;
    const grpc::Status status = cluster_.stub().WhatIf(&context, request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << field;
    EXPECT_THAT(status.error_message(), HasSubstr(field));
  }
}

TEST_F(PlanServiceCallTest, ThoseWhoAskForWorkersAreToldThatThereAreNone) {
  v1::PlanRequest request = Request();
  request.clear_cluster();
  EXPECT_EQ(Ask(request).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(Ask(request).error_message(),
              AllOf(HasSubstr("no worker is registered"), HasSubstr("--hardware")));
}

TEST_F(PlanServiceCallTest, AWorkerIsAskedOncePerPassSizeAndItsAnswerIsTheSame) {
  const ClusterSpec cluster = DescribedDesktop(3_GiB);
  RegisteredWorker worker(cluster_.address(), "w0", cluster.hosts.front());
  ClusterSpec named = cluster;
  named.hosts[0].worker = WorkerId("w0");
  const PlacementPlan local = Planned(*ProblemOn(named, MadeUpQuery(SmallLlama(), 4096, 0)));
  v1::PlanRequest known;  // by name, by spec, and by name on a described machine
  known.set_model("small");
  known.mutable_options()->set_context(4096);
  v1::PlanRequest sent = known;
  *sent.mutable_spec() = ToProto(SmallLlama());
  v1::PlanRequest elsewhere = known;
  *elsewhere.mutable_cluster() = ToProto(named);
  for (const v1::PlanRequest& request : {known, sent, elsewhere}) {
    const int before = worker.asked();
    grpc::ClientContext context;
    SetTimeout(context, kCall);
    v1::PlanResponse response;
    const grpc::Status status = cluster_.stub().Plan(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.text(), RenderPlanTable(local));
    EXPECT_LE(worker.asked() - before, static_cast<int>(PassSizesAsked(0).size()));
  }
  known.set_model("no-such");
  EXPECT_EQ(Ask(known).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(Ask(known).error_message(), AllOf(HasSubstr("no-such"), HasSubstr("w0")));
}

TEST_F(PlanServiceCallTest, ManyQuestionsAtOnceGetTheSameAnswer) {
  v1::PlanResponse expected;
  ASSERT_TRUE(cluster_.stub().Plan(&context_, Request(), &expected).ok());
  std::vector<std::thread> clients;
  for (int i = 0; i < 32; ++i) {
    clients.emplace_back([&] {
      grpc::ClientContext context;
      SetTimeout(context, kCall);
      v1::PlanResponse response;
      const grpc::Status status = cluster_.stub().Plan(&context, Request(), &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      EXPECT_EQ(response.SerializeAsString(), expected.SerializeAsString());
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(PlanServiceCallTest, ADeadlineInThePastIsHonoured) {
  ClusterController controller(absl::Seconds(3));
  PlanQueries queries(&controller);
  v1::PlanResponse response;
  const QueryCall late = {absl::Now() - absl::Seconds(1), [] { return false; }};
  EXPECT_EQ(queries.Plan(late, Request(), false, &response).code(),
            absl::StatusCode::kDeadlineExceeded);
  const QueryCall ended = {absl::InfiniteFuture(), [] { return true; }};
  EXPECT_EQ(queries.Plan(ended, Request(), false, &response).code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace millrace
