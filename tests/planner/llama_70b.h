// A 70B Llama in Q4_K_M and the machines it is planned for: the case that offloading is measured
// by.
#ifndef MILLRACE_TESTS_PLANNER_LLAMA_70B_H_
#define MILLRACE_TESTS_PLANNER_LLAMA_70B_H_

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "planner/placement_problem.h"

namespace millrace {

// 80 layers; half of the down and v matrices in Q6_K and Q5_K, the head in Q6_K.
inline ModelSpec Llama70B() {
  ModelSpec m;
  m.architecture = "llama";
  m.d_model = 8192;
  m.vocab = 128256;
  const auto add = [&m](TensorRole role, int layer, DType type, int64_t rows, int64_t cols) {
    TensorSpec t;
    t.name = "t" + std::to_string(m.tensors.size());
    t.role = role;
    t.layer = layer;
    t.dtype = type;
    t.shape = rows == 1 ? std::vector<int64_t>{cols} : std::vector<int64_t>{rows, cols};
    t.size = RowBytes(type, cols) * rows;
    m.tensors.push_back(t);
  };
  add(TensorRole::kTokenEmbedding, -1, DType::kQ4_K, m.vocab, 8192);
  for (int i = 0; i < 80; ++i) {
    const bool more = i % 2 == 0;
    m.layers.push_back({64, 8, 128, 28672});
    add(TensorRole::kAttnNorm, i, DType::kF32, 1, 8192);
    add(TensorRole::kAttnQ, i, DType::kQ4_K, 8192, 8192);
    add(TensorRole::kAttnK, i, DType::kQ4_K, 1024, 8192);
    add(TensorRole::kAttnV, i, more ? DType::kQ6_K : DType::kQ5_K, 1024, 8192);
    add(TensorRole::kAttnOutput, i, DType::kQ4_K, 8192, 8192);
    add(TensorRole::kFfnNorm, i, DType::kF32, 1, 8192);
    add(TensorRole::kFfnGate, i, DType::kQ4_K, 28672, 8192);
    add(TensorRole::kFfnUp, i, DType::kQ4_K, 28672, 8192);
    add(TensorRole::kFfnDown, i, more ? DType::kQ6_K : DType::kQ4_K, 8192, 28672);
  }
  add(TensorRole::kOutputNorm, -1, DType::kF32, 1, 8192);
  add(TensorRole::kOutput, -1, DType::kQ6_K, m.vocab, 8192);
  return m;
}

struct Machine {
  double hbm = 0, h2d = 0, dram = 0;  // GB/s
  double gpu_flops = 0, cpu_flops = 0;
  std::vector<CpuRate> cpu_rates = {};
};
// Measured on the reference machine (H200): AMX at 0.6 of its peak, bf16 products.
inline const Machine kReferenceMachine = {4590, 52, 125, 7e14, 37e12 * 0.6};
// The same with the products of first kernels as they were measured, Q4_K.
inline Machine MeasuredMachine() {
  Machine machine = kReferenceMachine;
  for (const auto& [tokens, gb] : {std::pair(1, 116.0), std::pair(4, 70.0), std::pair(8, 55.0),
                                   std::pair(32, 39.0), std::pair(256, 7.4)}) {
    machine.cpu_rates.push_back({tokens, Bandwidth::GBPerSecond(gb)});
  }
  return machine;
}
// A desktop as data sheets have it: RTX 3090, PCIe 4 x16, dual-channel DDR4.
inline const Machine kDesktop3090 = {936, 25, 45, 6e13, 1e12};

// Activations of passes of up to `tokens` as the runtime asks for them, rounded up: 350 KB per
// token; from 65 tokens on twice the largest fused matrix as f16.
inline void SetPass(PlacementProblem& p, int tokens) {
  const auto per_token = [](int n) { return Bytes(int64_t{350'000} * n); };
  p.max_pass_tokens = tokens;
  p.gpu_activations = {per_token(tokens) + 64_MiB + (tokens > 64 ? 1792_MiB : 0_MiB), Bytes(0),
                       80_MiB};
  p.activations = {per_token(tokens) + 8_MiB, Bytes(0), 9_MiB};
  p.host_route_activations = {per_token(std::min(tokens, kMaxHostRouteTokens)) + 8_MiB, Bytes(0),
                              9_MiB};
}

inline PlacementProblem Llama70BOn(const Machine& machine, Bytes budget, int slots = 1,
                                   int tokens = 2048) {
  PlacementProblem p;
  p.model_reference = "llama-70b";
  p.model = Llama70B();
  p.slots = slots;
  p.context = slots == 1 ? 4096 : 512;
  p.expected_prompt_tokens = 256;
  HostSpec host;
  host.worker = WorkerId("w");
  host.memory_total = host.budget = 128_GiB;
  host.dram_bandwidth = Bandwidth::GBPerSecond(machine.dram);
  host.cpu_flops = machine.cpu_flops;
  host.cpu_rates = machine.cpu_rates;
  DeviceSpec gpu;
  gpu.id = DeviceId("gpu0");
  gpu.kind = DeviceKind::kGpu;
  gpu.memory_total = gpu.budget = budget;
  gpu.overhead = 1100_MiB;
  gpu.memory_bandwidth = Bandwidth::GBPerSecond(machine.hbm);
  gpu.h2d_bandwidth = Bandwidth::GBPerSecond(machine.h2d);
  gpu.prefill_flops = machine.gpu_flops;
  host.devices = {gpu};
  p.cluster.hosts = {host};
  SetPass(p, tokens);
  return p;
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_PLANNER_LLAMA_70B_H_
