// Engines over hand-made arrangements of devices, shared by the tests that need a GPU.
#ifndef MILLRACE_TESTS_WORKER_GPU_ENGINE_H_
#define MILLRACE_TESTS_WORKER_GPU_ENGINE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "proto/stored_types.h"
#include "tests/fakes/plans.h"
#include "worker/engine.h"
#include "worker/local_stages.h"

namespace millrace {

struct Arrangement {
  std::vector<int> cuts;
  std::vector<std::string> devices = {"gpu0"};  // one per stage
  DType kv = DType::kF16;
  int max_pass_tokens = 512;
  int slots = 1;
  std::function<void(const PassTrace&)> on_pass = nullptr;
  std::vector<StoredType> types = {};  // what is not held as in the file
};

// Every block on its stage's device, in the arrangement's types.
inline void HoldAs(const ModelSpec& file, const std::vector<StoredType>& types,
                   PlacementPlan& plan) {
  const ModelSpec held = *HeldModel(file, types);
  const std::vector<Block> blocks = BlocksOf(held);
  for (size_t b = 0, stage = 0; b < blocks.size(); ++b) {
    if (static_cast<int>(b) >= plan.stages[stage].end_block) ++stage;
    BlockPlacement placement;
    placement.block = static_cast<int>(b);
    placement.stage = static_cast<int>(stage);
    placement.stored_types = StoredTypesOf(held, blocks[b]);
    plan.blocks.push_back(placement);
  }
}

inline absl::StatusOr<std::unique_ptr<Engine>> TryEngine(const std::shared_ptr<const Model>& model,
                                                  const Arrangement& setup, Bytes budget = Bytes(0)) {
  PlacementPlan plan = PlanWithCuts(model->spec(), setup.cuts, 512, setup.slots, setup.kv,
                                    setup.max_pass_tokens);
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    Stage& stage = plan.stages[i];
    stage.device = DeviceId(setup.devices[i]);
    stage.device_kind = setup.devices[i] == "cpu" ? DeviceKind::kCpu : DeviceKind::kGpu;
    if (budget > Bytes(0)) plan.totals.push_back({stage.worker, setup.devices[i], budget, budget});
  }
  if (!setup.types.empty()) HoldAs(model->spec(), setup.types, plan);
  StageOptions options;
  options.threads = 2;
  auto first = CreateLocalStages(model, plan, options);
  if (!first.ok()) return first.status();
  EngineOptions engine;
  engine.context = 512;
  engine.slots = setup.slots;
  engine.max_pass_tokens = setup.max_pass_tokens;
  engine.on_pass = setup.on_pass;
  return Engine::Create(model, *std::move(first), engine);
}

inline std::unique_ptr<Engine> MakeEngine(const std::shared_ptr<const Model>& model, const Arrangement& setup) {
  auto engine = TryEngine(model, setup);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

inline std::vector<TokenId> RandomTokens(int n, int64_t vocab, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<TokenId> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(static_cast<TokenId>(rng() % static_cast<uint64_t>(vocab)));
  return tokens;
}

inline float LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  float worst = a.size() == b.size() ? 0.0f : 1e9f;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

// Without sampling, `n` tokens whatever they are.
inline std::vector<TokenId> Greedy(Engine& engine, const std::vector<TokenId>& prompt, int n) {
  GenerateRequest request;
  request.tokens = prompt;
  request.max_tokens = n;
  request.sampling.temperature = 0;
  request.ignore_end_of_generation = true;
  const auto summary = engine.Generate(request, nullptr);
  EXPECT_TRUE(summary.ok()) << summary.status();
  return summary.ok() ? summary->tokens : std::vector<TokenId>();
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_WORKER_GPU_ENGINE_H_
