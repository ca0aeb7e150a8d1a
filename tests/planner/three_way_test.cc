// Plans of models that do not fit their GPU: homes, routes, ring, pass size, speed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "absl/time/clock.h"
#include "planner/host_rates.h"
#include "planner/pass_size.h"
#include "planner/plan_report.h"
#include "planner/plan_validator.h"
#include "planner/prediction.h"
#include "planner/route_choice.h"
#include "planner/solver.h"
#include "planner/spill.h"
#include "tests/planner/llama_70b.h"
#include "tests/planner/planned.h"
#include "tests/planner/random_problem.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

// Indices of host-homed feed-forward blocks that stream in a pass of n tokens, as places in the row
// of all host-homed ones.
std::vector<int> StreamedPlaces(const PlacementPlan& plan, int n) {
  std::vector<int> places;
  int at = 0;
  for (const BlockPlacement& b : plan.blocks) {
    if (b.home != Home::kHost || b.name.find("ffn") == std::string::npos) continue;
    if (b.host_route_max_tokens < n) places.push_back(at);
    ++at;
  }
  return places;
}

TEST(SpreadEvenlyTest, IsBresenhamsLine) {
  const auto ones = [](const std::vector<bool>& v) { return std::count(v.begin(), v.end(), true); };
  EXPECT_EQ(SpreadEvenly(6, 2), (std::vector<bool>{false, true, false, false, true, false}));
  EXPECT_EQ(SpreadEvenly(5, 5), std::vector<bool>(5, true));
  EXPECT_TRUE(SpreadEvenly(0, 0).empty());
  for (int count = 1; count < 60; ++count) {
    for (int chosen = 0; chosen <= count; ++chosen) {
      const std::vector<bool> row = SpreadEvenly(count, chosen);
      ASSERT_EQ(ones(row), chosen) << count;
      // Gaps differ by at most one.
      int last = -1, least = count, most = 0;
      for (int i = 0; i < count; ++i) {
        if (!row[i]) continue;
        if (last >= 0) {
          least = std::min(least, i - last);
          most = std::max(most, i - last);
        }
        last = i;
      }
      EXPECT_LE(chosen > 1 ? most - least : 0, 1) << count << " " << chosen;
    }
  }
}

TEST(SpillTest, LessMemorySpillsASupersetSpreadOverTheLayers) {
  const PlacementProblem p = Llama70BOn(kReferenceMachine, 24_GiB);
  const MemoryBudget memory(p);
  const ResolvedPins pins = *ResolvePins(p);
  const SpillOrder order(p, memory, pins);
  std::vector<bool> before(162, false);
  for (int spilled = 1; spilled <= 162; ++spilled) {
    const std::vector<bool> homes = order.Homes(0, 162, spilled);
    EXPECT_EQ(std::count(homes.begin(), homes.end(), true), spilled);
    for (int b = 0; b < 162; ++b) EXPECT_TRUE(homes[b] || !before[b]) << b;
    before = homes;
    int layers[4] = {0, 0, 0, 0};  // feed-forward blocks by quarter of the layers
    for (int i = 0; i < 80; ++i) layers[i / 20] += homes[2 + 2 * i];
    EXPECT_LE(*std::max_element(layers, layers + 4) - *std::min_element(layers, layers + 4), 4);
    EXPECT_EQ(homes[161], spilled == 162) << "the head goes last";
    EXPECT_TRUE(spilled > 81 || !homes[1]) << "attention goes after feed-forward";
  }
  EXPECT_TRUE(order.Homes(0, 162, 0).empty());
  EXPECT_TRUE(order.Homes(0, 162, 1)[0]) << "the embedding goes first";
}

TEST(SpillTest, RingDepths) {
  const PlacementProblem p = Llama70BOn(kReferenceMachine, 24_GiB);
  const MemoryBudget memory(p);
  const Bytes gate_up(2 * int64_t{28672} * 8192 / 256 * 144);
  const Bytes down(int64_t{28672} * 8192 / 256 * 210);  // q6_K
  const StreamSizes& ffn = memory.Streamed(2);
  EXPECT_EQ(ffn.tiled_group, gate_up);
  EXPECT_EQ(ffn.raw_group, gate_up);
  EXPECT_EQ(RingBytes(ffn, 1), gate_up);
  EXPECT_EQ(RingBytes(ffn, 2), gate_up + down);
  EXPECT_EQ(RingBytes(ffn, 3), gate_up * 2 + down);
  EXPECT_EQ(RingBytes(ffn, 4), gate_up * 3 + down * 2);
  EXPECT_EQ(StreamStaging(gate_up), 64_MiB);
  EXPECT_EQ(StreamStaging(Bytes(1000)), Bytes(1024));
  EXPECT_EQ(StreamStaging(Bytes(0)), Bytes(0));
}

TEST(StreamLayoutTest, GroupsAreTheMatricesOfOneOp) {
  const ModelSpec m = Llama70B();
  const std::vector<Block> blocks = BlocksOf(m);
  EXPECT_TRUE(StreamedGroupsOf(m, blocks[0]).empty());
  const auto attention = StreamedGroupsOf(m, blocks[1]);
  ASSERT_EQ(attention.size(), 2u);
  EXPECT_EQ(attention[0].tensors.size(), 3u);
  EXPECT_EQ(m.tensors[attention[1].tensors[0]].role, TensorRole::kAttnOutput);
  const auto ffn = StreamedGroupsOf(m, blocks[2]);
  ASSERT_EQ(ffn.size(), 2u);
  EXPECT_EQ(ffn[0].tensors.size(), 2u);
  EXPECT_EQ(StreamedGroupsOf(m, blocks[161]).size(), 1u);
  EXPECT_EQ(BlockVectorBytes(m, blocks[2]), Bytes(4 * 8192));
}

TEST(ThreeWayTest, The70BUnder24GiB) {
  const PlacementProblem p = Llama70BOn(kReferenceMachine, 24_GiB);
  const PlacementPlan plan = Planned(p);
  ASSERT_TRUE(ValidatePlan(p, plan).ok());
  EXPECT_EQ(plan.blocks[0].home, Home::kHost) << "the table is looked up in RAM";
  for (const BlockPlacement& b : plan.blocks) {
    if (b.name.find("attn") == std::string::npos && b.name != "head") continue;
    EXPECT_EQ(b.home, Home::kDevice) << b.name;
  }
  // Copies and CPU are both busy, and no bound is passed: what memory gives both together.
  const MemoryBudget memory(p);
  const SteadyPass pass = Predictor(p, memory, plan).StagePass(0, 1);
  EXPECT_GT(pass.copy_share, 0.9);
  EXPECT_GT(pass.cpu_share, 0.85);
  double offloaded = 0;
  for (const BlockPlacement& b : plan.blocks) {
    const bool counts = b.home == Home::kHost && b.block > 0;
    offloaded += counts ? static_cast<double>(b.weights.count()) : 0;
  }
  EXPECT_GT(pass.seconds, offloaded / (kDramTogether * 125e9));
  EXPECT_LT(pass.seconds, 1.12 * offloaded / (kDramTogether * 125e9));
  EXPECT_GT(plan.predicted.decode_tokens_per_second, 5.8);
  EXPECT_LT(plan.predicted.ttft, absl::Milliseconds(450));
  EXPECT_THAT(plan.binding_constraint, HasSubstr("the link and the host's DRAM together"));
}

TEST(ThreeWayTest, RoutesFallFromCpuToStreamAndStayInterleaved) {
  const PlacementPlan plan = Planned(Llama70BOn(kReferenceMachine, 24_GiB));
  const std::vector<int> one = StreamedPlaces(plan, 1);
  ASSERT_GT(one.size(), 5u);
  int least = 1000, most = 0;
  for (size_t i = 1; i < one.size(); ++i) {
    least = std::min(least, one[i] - one[i - 1]);
    most = std::max(most, one[i] - one[i - 1]);
  }
  EXPECT_LE(most - least, 1);
  size_t before = one.size();
  for (int n : {2, 8, 32, 64, 128, 256, 512, 513}) {
    const size_t now = StreamedPlaces(plan, n).size();
    EXPECT_GE(now, before) << n;
    before = now;
  }
  EXPECT_LT(StreamedPlaces(plan, 32).size(), 1.2 * static_cast<double>(one.size()))
      << "with AMX the CPU stays bound by memory";
  EXPECT_GT(StreamedPlaces(plan, 256).size(), one.size());
  const size_t all = StreamedPlaces(plan, 513).size();
  for (const BlockPlacement& b : plan.blocks) EXPECT_LE(b.host_route_max_tokens, 512);
  // A CPU without AMX gives way to the link much earlier.
  PlacementProblem slow = Llama70BOn(kReferenceMachine, 24_GiB);
  slow.cluster.hosts[0].cpu_flops = 0.8e12;
  EXPECT_EQ(StreamedPlaces(Planned(slow), 64).size(), all);
}

TEST(ThreeWayTest, MeasuredProductsSetTheRoutes) {
  PlacementProblem p = Llama70BOn(MeasuredMachine(), 24_GiB);
  const PlacementPlan plan = Planned(p);
  ASSERT_TRUE(ValidatePlan(p, plan).ok()) << ValidatePlan(p, plan);
  const size_t all = StreamedPlaces(plan, 513).size();
  size_t before = 0;
  for (int n = 1; n <= 512; ++n) {
    const size_t now = StreamedPlaces(plan, n).size();
    EXPECT_GE(now, before) << n;
    before = now;
  }
  // 39 GB/s of products beside a link of 52 at 32 rows; 14 at 128, where one block would take as
  // long as the link four.
  EXPECT_LT(StreamedPlaces(plan, 32).size(), all - 10);
  EXPECT_GE(StreamedPlaces(plan, 128).size(), all - 4);
  // Products that keep up make the CPU useful for prompts of hundreds.
  PlacementProblem fast = p;
  fast.cluster.hosts[0].cpu_rates = {{1, Bandwidth::GBPerSecond(116)},
                                     {256, Bandwidth::GBPerSecond(60)}};
  const PlacementPlan faster = Planned(fast);
  EXPECT_LT(StreamedPlaces(faster, 256).size(), all - 10);
  EXPECT_LT(faster.predicted.ttft, plan.predicted.ttft);
}

TEST(ThreeWayTest, DecodeIsNoFasterThanProductsAndMemory) {
  const PlacementProblem p = Llama70BOn(MeasuredMachine(), 24_GiB, 32, 512);
  const PlacementPlan plan = Planned(p);
  const MemoryBudget memory(p);
  const Predictor predictor(p, memory, plan);
  for (int batch : {1, 4, 8, 32}) {
    double cpu = 0, copies = 0;  // bytes
    for (const BlockPlacement& b : plan.blocks) {
      if (b.home != Home::kHost || b.block == 0) continue;
      const int all = memory.Units(b.block);
      const double part = all > 0 ? CpuWorkOf(b).Units(batch, all) / static_cast<double>(all) : 0;
      cpu += part * static_cast<double>(b.weights.count());
      copies += (1 - part) * static_cast<double>(b.weights.count());
    }
    const double rate = 1 / CpuSecondsPerByte(p.cluster.hosts[0].cpu_rates, batch);
    // Of eight passes, in which the ring may have got fuller by a group.
    const double seconds = 1.01 * predictor.DecodeSeconds(batch);
    EXPECT_GE(seconds, 0.95 * cpu / rate) << batch;  // Q6_K: more bytes for the same products
    EXPECT_GE(seconds, copies / 52e9) << batch;
    EXPECT_GE(seconds, (cpu + copies) / (kDramTogether * 125e9)) << batch;
  }
}

// Thresholds are sizes of the ladder, whatever the problem.
TEST(ThreeWayTest, RoutesOfRandomProblemsAreOnTheLadder) {
  std::mt19937 rng(21);
  int routed = 0;
  for (int round = 0; round < 1000; ++round) {
    PlacementProblem p = RandomProblem(rng);
    p.max_pass_tokens = 700;
    const auto result = Solve(p);
    ASSERT_TRUE(result.ok()) << result.status();
    if (!result->plan.has_value()) continue;
    ASSERT_TRUE(ValidatePlan(p, *result->plan).ok()) << ValidatePlan(p, *result->plan);
    for (const BlockPlacement& b : result->plan->blocks) {
      const int most = b.host_route_max_tokens;
      routed += most > 0;
      if (p.routes == RoutePolicy::kCpu && most == 700) continue;
      EXPECT_EQ(most & (most - 1), 0) << most;
      EXPECT_LE(most, kMaxHostRouteTokens);
    }
  }
  EXPECT_GT(routed, 50);
}

TEST(ThreeWayTest, SequencesTogetherShareTheWeights) {
  const PlacementProblem p = Llama70BOn(kReferenceMachine, 24_GiB, 32, 512);
  const PlacementPlan plan = Planned(p);
  EXPECT_EQ(plan.predicted.decode_batch, 32);
  EXPECT_GT(plan.predicted.batch_tokens_per_second, 150);
  EXPECT_THAT(RenderPlanTable(plan), HasSubstr("32 sequences together: "));
}

TEST(ThreeWayTest, WhatFitsHasNeitherRingNorRoutes) {
  const PlacementPlan plan = Planned(Llama70BOn(kReferenceMachine, 140_GiB));
  EXPECT_EQ(plan.stages[0].stream_ring, Bytes(0));
  for (const BlockPlacement& b : plan.blocks) EXPECT_EQ(b.home, Home::kDevice);
  for (const LedgerEntry& e : plan.ledger) EXPECT_NE(e.memory, "host");
}

TEST(ThreeWayTest, MoreMemoryIsFasterFrom4To48GiB) {
  double before = 0;
  for (int gib = 4; gib <= 48; ++gib) {
    const PlacementProblem p = Llama70BOn(kReferenceMachine, 1_GiB * gib, 1, 64);
    const double now = Planned(p).predicted.decode_tokens_per_second;
    // Whole blocks make the simulated times uneven by a fraction of one.
    EXPECT_GT(now, before * 0.99) << gib << " GiB";
    before = std::max(before, now);
  }
  EXPECT_GT(before, 60);
}

TEST(ThreeWayTest, ThePassShrinksWithTheBudget) {
  const auto size_at = [](Bytes budget) {
    PlacementProblem p = Llama70BOn(kReferenceMachine, budget);
    const auto problem_at = [&](int tokens) -> absl::StatusOr<PlacementProblem> {
      SetPass(p, tokens);
      return p;
    };
    return AtBestPassSize(p.cluster, problem_at)->max_pass_tokens;
  };
  EXPECT_EQ(size_at(140_GiB), kGpuPassTokens) << "as for resident weights";
  EXPECT_GE(size_at(24_GiB), 2048);
  EXPECT_EQ(size_at(4_GiB), 64);
  EXPECT_EQ(size_at(1_GiB), 64) << "nothing fits";
}

TEST(PassSizeTest, ATenthOfEveryBudgetIsWellAndCpusTakeSmallPasses) {
  std::mt19937 rng(1);
  PlacementProblem p = BaseProblem(TestModel(4, false, rng, false, 512));
  p.cluster.hosts = {CpuHost("w", 1_GiB, 20)};
  p.activations = {100_MiB, Bytes(0), 2_MiB};
  EXPECT_TRUE(PassFitsWell(p));
  p.activations.body = 101_MiB;
  EXPECT_FALSE(PassFitsWell(p));
  const auto problem_at = [&](int tokens) -> absl::StatusOr<PlacementProblem> {
    p.max_pass_tokens = tokens;
    return p;
  };
  EXPECT_EQ(AtBestPassSize(p.cluster, problem_at)->max_pass_tokens, kDefaultPassTokens);
}

TEST(ThreeWayTest, APinnedHeadOrAttentionBlockStreams) {
  PlacementProblem p = Llama70BOn(kReferenceMachine, 64_GiB);
  p.pins = {{"head", "host"}, {"blk.7.attn", "host"}};
  for (RoutePolicy routes : {RoutePolicy::kAuto, RoutePolicy::kCpu}) {
    p.routes = routes;
    const PlacementPlan plan = Planned(p);
    EXPECT_EQ(plan.blocks[161].home, Home::kHost);
    EXPECT_EQ(plan.blocks[161].host_route_max_tokens, 0);
    EXPECT_EQ(plan.blocks[15].home, Home::kHost);
    EXPECT_EQ(plan.blocks[15].host_route_max_tokens, 0);
    EXPECT_GE(plan.stages[0].stream_ring, TiledBytes(DType::kQ6_K, 128256, 8192));
  }
}

TEST(ThreeWayTest, TooLittleHostMemoryIsNamed) {
  PlacementProblem p = Llama70BOn(kReferenceMachine, 24_GiB);
  p.cluster.hosts[0].budget = p.cluster.hosts[0].memory_total = 20_GiB;
  const auto result = *Solve(p);
  ASSERT_TRUE(result.infeasible.has_value());
  ASSERT_EQ(result.infeasible->nearest_budget.size(), 1u);
  const auto fix = result.infeasible->nearest_budget[0];
  (fix.memory == "host" ? p.cluster.hosts[0].budget : p.cluster.hosts[0].devices[0].budget) =
      fix.wanted;
  EXPECT_TRUE(Solve(p)->plan.has_value());
}

TEST(ThreeWayTest, ACpuBesideTheGpuIsLentToItWhereThatIsFaster) {
  PlacementProblem p = Llama70BOn(kReferenceMachine, 24_GiB);
  const PlacementPlan alone = Planned(p);
  HostSpec& host = p.cluster.hosts[0];
  DeviceSpec cpu;
  cpu.id = DeviceId("cpu");
  cpu.budget = cpu.memory_total = host.budget;
  cpu.memory_bandwidth = host.dram_bandwidth;
  cpu.prefill_flops = host.cpu_flops;
  host.devices.push_back(cpu);
  const PlacementPlan lent = Planned(p);
  EXPECT_EQ(lent.stages.size(), 1u);
  EXPECT_EQ(lent.predicted.time_per_token, alone.predicted.time_per_token);
  p.pins = {{"head", "cpu"}};
  EXPECT_EQ(Planned(p).stages.back().device_kind, DeviceKind::kCpu);
}

TEST(ThreeWayTest, TheDesktopIsAsItsBandwidthsSay) {
  // 22 GiB of a 24 GiB card that also shows a desktop.
  const PlacementPlan plan = Planned(Llama70BOn(kDesktop3090, 22_GiB, 1, 512));
  EXPECT_GT(plan.predicted.decode_tokens_per_second, 1.8);
  EXPECT_LT(plan.predicted.decode_tokens_per_second, 2.6);
}

TEST(ThreeWayTest, EqualProblemsGiveEqualPlansSoon) {
  PlacementProblem p = Llama70BOn(kReferenceMachine, 4_GiB, 1, 64);
  DeviceSpec gpu = p.cluster.hosts[0].devices[0];
  HostSpec host = p.cluster.hosts[0];
  p.cluster.hosts.clear();
  for (int i = 0; i < 16; ++i) {
    host.worker = WorkerId("w" + std::to_string(i));
    gpu.budget = 2300_MiB + 1_MiB * (i % 3);
    host.devices = {gpu};
    p.cluster.hosts.push_back(host);
  }
  const absl::Time begin = absl::Now();
  const PlacementPlan first = Planned(p);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));  // generous: sanitizers and shared machines
  EXPECT_EQ(RenderExplain(first, nullptr), RenderExplain(Planned(p), nullptr));
  EXPECT_TRUE(ValidatePlan(p, first).ok());
}

TEST(ThreeWayTest, TheTableShowsHomesRoutesAndRing) {
  const PlacementProblem p = Llama70BOn(kReferenceMachine, 24_GiB);
  const std::string text = RenderExplain(Planned(p), nullptr);
  for (const char* part :
       {"1 sequence decodes", "first token of a 256-token prompt", "resident", "streamed",
        "by the CPU", "embedding looked up in RAM", "; ring", "weights in RAM", "stream ring"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  size_t line = 0, widest = 0;
  for (char c : text) {
    line = c == '\n' ? 0 : line + 1;
    widest = std::max(widest, line);
  }
  EXPECT_LE(widest, 100u) << text;
}

TEST(ThreeWayValidatorTest, CatchesDamage) {
  PlacementProblem p = Llama70BOn(kReferenceMachine, 24_GiB);
  const PlacementPlan good = Planned(p);
  int on_cpu = -1, resident = -1;
  for (const BlockPlacement& b : good.blocks) {
    if (b.host_route_max_tokens > 0) on_cpu = b.block;
    if (b.home == Home::kDevice && b.name.find("ffn") != std::string::npos) resident = b.block;
  }
  ASSERT_GE(on_cpu, 0);
  ASSERT_GE(resident, 0);
  const auto refusal = [&](const PlacementProblem& problem, auto change) {
    PlacementPlan plan = good;
    change(plan);
    return std::string(ValidatePlan(problem, plan).message());
  };
  EXPECT_EQ(refusal(p, [](auto&) {}), "");
  EXPECT_THAT(refusal(p, [](auto& x) { x.stages[0].stream_ring = 100_MiB; }), HasSubstr("ring"));
  EXPECT_THAT(refusal(p, [](auto& x) { x.stages[0].stream_ring += 2_MiB; }), HasSubstr("ledger"));
  EXPECT_THAT(refusal(p, [&](auto& x) { x.blocks[resident].home = Home::kHost; }),
              HasSubstr("ledger"));
  EXPECT_THAT(refusal(p, [&](auto& x) { x.blocks[resident].host_route_max_tokens = 1; }),
              HasSubstr("host route"));
  EXPECT_THAT(refusal(p, [&](auto& x) { x.blocks[on_cpu].host_route_max_tokens = 1 << 20; }),
              HasSubstr("host route"));
  EXPECT_THAT(refusal(p, [&](auto& x) { x.blocks[on_cpu].host_route_max_tokens = 600; }),
              HasSubstr("w/host"));
  for (size_t i = 0; i < good.ledger.size(); ++i) {
    EXPECT_THAT(refusal(p, [i](auto& x) { x.ledger[i].bytes -= 1_B; }), HasSubstr("ledger")) << i;
  }
  PlacementProblem other = p;
  other.routes = RoutePolicy::kStream;
  EXPECT_THAT(refusal(other, [](auto&) {}), HasSubstr("host route"));
  other.routes = RoutePolicy::kCpu;
  EXPECT_THAT(refusal(other, [](auto&) {}), HasSubstr("the CPU was to compute it"));
  other = p;
  other.cluster.hosts[0].budget = 8_GiB;
  EXPECT_THAT(refusal(other, [](auto&) {}), HasSubstr("host memory"));
}

}  // namespace
}  // namespace millrace
