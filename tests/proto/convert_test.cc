#include "proto/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "proto/plan_json.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

ModelSpec SmallModel() {
  ModelSpec model;
  model.architecture = "llama";
  model.name = "small";
  model.vocab = 100;
  model.d_model = 32;
  model.context_length = 64;
  model.norm_epsilon = 1e-6f;
  model.tied_output = true;
  model.rope = {RopeStyle::kHalfSplit, 8, 5e5f, 2.0f, {1, 2, 3, 4}};
  model.layers = {{4, 2, 8, 64}};
  model.tensors = {{"token_embd.weight",
                    TensorRole::kTokenEmbedding,
                    -1,
                    DType::kF16,
                    {100, 32},
                    0,
                    Bytes(128),
                    Bytes(6400)},
                   {"blk.0.ffn_down.weight",
                    TensorRole::kFfnDown,
                    0,
                    DType::kQ8_0,
                    {32, 64},
                    0,
                    Bytes(6528),
                    Bytes(2176)}};
  model.files = {{"small.gguf", Bytes(9000)}};
  return model;
}

PlacementPlan SmallPlan() {
  PlacementPlan plan;
  plan.epoch = Epoch{7};
  plan.model = "small.gguf";
  plan.model_fingerprint = "0123456789abcdef";
  plan.context = 64;
  plan.slots = 2;
  plan.kv_type = DType::kQ8_0;
  plan.stages = {{WorkerId("w0"), DeviceId("cpu"), DeviceKind::kCpu, "h:1", 0, 2},
                 {WorkerId("w1"), DeviceId("gpu0"), DeviceKind::kGpu, "h:2", 2, 4, Bytes(512)}};
  plan.blocks = {{0, "embed", 0, Home::kDevice, 0, Bytes(6400), "f16"},
                 {1, "blk.0.attn", 0, Home::kDevice, 0, Bytes(10), "f16", Home::kHost},
                 {2, "blk.0.ffn", 1, Home::kHost, 3, Bytes(20), "q8_0"},
                 {3, "head", 1, Home::kDisk, 0, Bytes(0), "f16"}};
  plan.blocks[2].cpu_shares = {{8, 512}, {64, 256}};
  plan.blocks[2].stored_types = {{"blk.0.ffn_up.weight", DType::kQ6_K},
                                 {"blk.0.ffn_down.weight", DType::kQ8_0}};
  plan.ledger = {{WorkerId("w0"), "cpu", Purpose::kStreamRing, Bytes(5)}};
  plan.totals = {{WorkerId("w0"), "cpu", Bytes(100), Bytes(50)}};
  plan.predicted.decode_batch = 2;
  plan.predicted.search_gap = 0.03125;
  plan.predicted.ttft = absl::Milliseconds(12.5);
  plan.predicted.stage_time_per_token = {absl::Milliseconds(1), absl::Milliseconds(2)};
  plan.binding_constraint = "memory of w1";
  return plan;
}

TEST(ConvertTest, ModelSurvivesTheRoundTrip) {
  const v1::ModelSpec wire = ToProto(SmallModel());
  const absl::StatusOr<ModelSpec> back = FromProto(wire);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(ToProto(*back).SerializeAsString(), wire.SerializeAsString());
  EXPECT_EQ(FingerprintOf(*back), FingerprintOf(SmallModel()));
  EXPECT_EQ(back->tensors[1].role, TensorRole::kFfnDown);
  EXPECT_EQ(back->tensors[1].dtype, DType::kQ8_0);
  EXPECT_EQ(back->rope.style, RopeStyle::kHalfSplit);
}

TEST(ConvertTest, EveryDTypeSurvivesTheRoundTrip) {
  for (DType dtype : kAllDTypes) EXPECT_EQ(*FromProto(ToProto(dtype)), dtype);
  EXPECT_FALSE(FromProto(v1::DTYPE_UNSPECIFIED).ok());
}

TEST(ConvertTest, BadModelFieldsAreNamed) {
  const auto refusal = [](const std::function<void(v1::ModelSpec&)>& spoil) {
    v1::ModelSpec wire = ToProto(SmallModel());
    spoil(wire);
    return std::string(FromProto(wire).status().message());
  };
  EXPECT_THAT(refusal([](v1::ModelSpec& m) { m.set_vocab(0); }), HasSubstr("ModelSpec.vocab"));
  EXPECT_THAT(refusal([](v1::ModelSpec& m) { m.mutable_tensors(1)->set_layer(1); }),
              HasSubstr("ModelSpec.tensors[1].layer"));
  EXPECT_THAT(refusal([](v1::ModelSpec& m) { m.mutable_tensors(0)->set_size(-1); }),
              HasSubstr("ModelSpec.tensors[0].size"));
  EXPECT_THAT(refusal([](v1::ModelSpec& m) { m.mutable_tensors(0)->clear_shape(); }),
              HasSubstr("ModelSpec.tensors[0].shape"));
  EXPECT_THAT(refusal([](v1::ModelSpec& m) { m.mutable_layers(0)->set_kv_heads(5); }),
              HasSubstr("ModelSpec.layers[0].kv_heads"));
  EXPECT_THAT(refusal([](v1::ModelSpec& m) { m.mutable_rope()->add_frequency_factors(1); }),
              HasSubstr("frequency_factors"));
}

TEST(ConvertTest, PlanSurvivesTheRoundTripThroughJson) {
  const std::string json = PlanToJson(SmallPlan());
  EXPECT_THAT(json, HasSubstr("\"first_block\": 2"));
  const absl::StatusOr<PlacementPlan> back = PlanFromJson(json);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(PlanToJson(*back), json);
  EXPECT_EQ(back->blocks[2].home, Home::kHost);
  EXPECT_EQ(back->blocks[3].home, Home::kDisk);
  EXPECT_EQ(back->blocks[1].kv_home, Home::kHost);
  EXPECT_EQ(back->blocks[2].kv_home, Home::kDevice);
  ASSERT_EQ(back->blocks[2].cpu_shares.size(), 2u);
  EXPECT_EQ(back->blocks[2].cpu_shares[1].max_tokens, 64);
  EXPECT_EQ(back->blocks[2].cpu_shares[1].units, 256);
  EXPECT_TRUE(back->blocks[1].stored_types.empty());
  EXPECT_EQ(back->blocks[2].stored_types, SmallPlan().blocks[2].stored_types);
  EXPECT_EQ(back->stages[1].stream_ring, Bytes(512));
  EXPECT_EQ(back->predicted.decode_batch, 2);
  EXPECT_EQ(back->predicted.search_gap, 0.03125);
  EXPECT_EQ(back->ledger[0].purpose, Purpose::kStreamRing);
  EXPECT_EQ(back->predicted.ttft, absl::Milliseconds(12.5));
}

// Made before blocks could be split.
TEST(ConvertTest, PlansOfVersionOneAreReadAsTheyAre) {
  v1::PlacementPlan wire = ToProto(SmallPlan());
  wire.set_format_version(1);
  wire.mutable_blocks(2)->clear_cpu_shares();
  const absl::StatusOr<PlacementPlan> plan = FromProto(wire);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->format_version, 1);
  EXPECT_TRUE(plan->blocks[2].cpu_shares.empty());
  EXPECT_EQ(CpuWorkOf(plan->blocks[2]).Units(3, 1024), 1024);
  EXPECT_EQ(CpuWorkOf(plan->blocks[2]).Units(4, 1024), 0);
}

// Made before tensors could be held in other types than the file's.
TEST(ConvertTest, PlansOfVersionTwoAreReadAsTheyAre) {
  v1::PlacementPlan wire = ToProto(SmallPlan());
  wire.set_format_version(2);
  wire.mutable_blocks(2)->clear_stored_types();
  const absl::StatusOr<PlacementPlan> plan = FromProto(wire);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->blocks[2].cpu_shares.size(), 2u);
  EXPECT_TRUE(plan->blocks[2].stored_types.empty());
}

TEST(CpuWorkTest, GoesByTheSizeOfThePass) {
  BlockPlacement block;
  EXPECT_EQ(CpuWorkOf(block).Units(1, 1024), 0);
  block.host_route_max_tokens = 2;
  block.cpu_shares = {{8, 768}, {32, 0}, {64, 256}};
  EXPECT_EQ(CpuWorkOf(block).Units(1, 1024), 1024);
  EXPECT_EQ(CpuWorkOf(block).Units(3, 1024), 768);
  EXPECT_EQ(CpuWorkOf(block).Units(8, 1024), 768);
  EXPECT_EQ(CpuWorkOf(block).Units(9, 1024), 0);
  EXPECT_EQ(CpuWorkOf(block).Units(64, 1024), 256);
  EXPECT_EQ(CpuWorkOf(block).Units(65, 1024), 0);
  EXPECT_EQ(CpuWorkOf(block).LeastUnits(2, 1024), 1024);
  EXPECT_EQ(CpuWorkOf(block).LeastUnits(5, 1024), 768);
  EXPECT_EQ(CpuWorkOf(block).LeastUnits(64, 1024), 0);
  EXPECT_EQ(CpuWorkOf(block).LargestPass(5), 5);
  EXPECT_EQ(CpuWorkOf(block).LargestPass(20), 8);
  EXPECT_EQ(CpuWorkOf(block).LargestPass(512), 64);
}

TEST(ConvertTest, BadPlanFieldsAreNamed) {
  const auto refusal = [](const std::function<void(v1::PlacementPlan&)>& spoil) {
    v1::PlacementPlan wire = ToProto(SmallPlan());
    spoil(wire);
    const absl::Status status = FromProto(wire).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  const std::string version = refusal([](v1::PlacementPlan& p) { p.set_format_version(9); });
  EXPECT_THAT(version, HasSubstr("version 9"));
  EXPECT_THAT(version, HasSubstr("versions 1 to 3"));
  EXPECT_THAT(refusal([](v1::PlacementPlan& p) { p.mutable_stages(1)->set_first_block(3); }),
              HasSubstr("stages[1].first_block"));
  EXPECT_THAT(refusal([](v1::PlacementPlan& p) { p.mutable_stages(0)->set_end_block(0); }),
              HasSubstr("stages[0].end_block"));
  EXPECT_THAT(refusal([](v1::PlacementPlan& p) { p.mutable_blocks()->RemoveLast(); }),
              HasSubstr("PlacementPlan.blocks"));
  EXPECT_THAT(refusal([](v1::PlacementPlan& p) { p.mutable_blocks(2)->set_stage(0); }),
              HasSubstr("blocks[2].stage"));
  EXPECT_THAT(refusal([](v1::PlacementPlan& p) {
                p.mutable_blocks(2)->mutable_cpu_shares(1)->set_max_tokens(8);
              }),
              HasSubstr("blocks[2].cpu_shares.max_tokens"));
  EXPECT_THAT(refusal([](v1::PlacementPlan& p) {
                p.mutable_blocks(2)->mutable_stored_types(1)->clear_dtype();
              }),
              HasSubstr("blocks[2].stored_types[1].dtype"));
  EXPECT_THAT(refusal([](v1::PlacementPlan& p) {
                p.mutable_blocks(2)->mutable_stored_types(0)->clear_tensor();
              }),
              HasSubstr("blocks[2].stored_types[0].tensor"));
  EXPECT_THAT(refusal([](v1::PlacementPlan& p) { p.mutable_stages(1)->set_stream_ring(-1); }),
              HasSubstr("stages[1].stream_ring"));
  EXPECT_THAT(refusal([](v1::PlacementPlan& p) { p.set_slots(0); }), HasSubstr("slots"));
  EXPECT_THAT(refusal([](v1::PlacementPlan& p) { p.set_kv_type(v1::DTYPE_UNSPECIFIED); }),
              HasSubstr("kv_type"));
  EXPECT_THAT(refusal([](v1::PlacementPlan& p) { p.clear_stages(); }), HasSubstr("stages"));
}

TEST(ConvertTest, BrokenPlanJsonIsRefused) {
  EXPECT_FALSE(PlanFromJson("{").ok());
  EXPECT_FALSE(PlanFromJson("[]").ok());
  EXPECT_THAT(std::string(PlanFromJson("{\"slotz\": 3}").status().message()), HasSubstr("slotz"));
}

TEST(ConvertTest, HostsThatClaimTooMuchAreRefused) {
  HostSpec host;
  host.worker = WorkerId("w0");
  host.memory_total = 8_GiB;
  host.budget = 9_GiB;
  host.devices.resize(1);
  host.devices[0].id = DeviceId("cpu");
  EXPECT_THAT(std::string(FromProto(ToProto(host)).status().message()),
              HasSubstr("HostSpec.budget"));
  host.budget = 8_GiB;
  host.cpu_flops = 3e12;
  ASSERT_TRUE(FromProto(ToProto(host)).ok());
  EXPECT_EQ(FromProto(ToProto(host))->cpu_flops, 3e12);
  for (const bool direct : {true, false}) {
    host.devices[0].direct_products = direct;
    EXPECT_EQ(FromProto(ToProto(host))->devices[0].direct_products, direct);
  }
  EXPECT_TRUE(FromProto(ToProto(host))->cpu_rates.empty()) << "as old workers send it";
  host.cpu_rates = {{1, Bandwidth::GBPerSecond(116)}, {32, Bandwidth::GBPerSecond(39), Bandwidth::GBPerSecond(33)}};
  const HostSpec read = *FromProto(ToProto(host));
  ASSERT_EQ(read.cpu_rates.size(), 2u);
  EXPECT_EQ(read.cpu_rates[1].tokens, 32);
  EXPECT_EQ(read.cpu_rates[1].weights, Bandwidth::GBPerSecond(39));
  EXPECT_EQ(read.cpu_rates[0].beside_copies, Bandwidth()) << "never measured";
  EXPECT_EQ(read.cpu_rates[1].beside_copies, Bandwidth::GBPerSecond(33));
  const auto refusal = [&](auto change) {
    v1::HostSpec wire = ToProto(host);
    change(wire);
    return std::string(FromProto(wire).status().message());
  };
  EXPECT_THAT(refusal([](auto& w) { w.mutable_cpu_rates(1)->set_tokens(1); }),
              HasSubstr("cpu_rates[1].tokens"));
  EXPECT_THAT(refusal([](auto& w) { w.mutable_cpu_rates(0)->set_weights(0); }),
              HasSubstr("cpu_rates[0].weights"));
  EXPECT_THAT(refusal([](auto& w) { w.mutable_cpu_rates(0)->set_weights(-1); }),
              HasSubstr("cpu_rates[0].weights"));
  EXPECT_THAT(refusal([](auto& w) { w.mutable_cpu_rates(1)->set_beside_copies(-1); }),
              HasSubstr("cpu_rates[1].beside_copies"));
  host.devices.push_back(host.devices[0]);
  EXPECT_THAT(std::string(FromProto(ToProto(host)).status().message()), HasSubstr("devices[1].id"));
}

}  // namespace
}  // namespace millrace
