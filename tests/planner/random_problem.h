// Random placement problems for property tests.
#ifndef MILLRACE_TESTS_PLANNER_RANDOM_PROBLEM_H_
#define MILLRACE_TESTS_PLANNER_RANDOM_PROBLEM_H_

#include <algorithm>
#include <random>
#include <string>

#include "planner/placement_problem.h"

namespace millrace {

inline void AddTensor(ModelSpec& m, TensorRole role, int layer, int64_t rows, int64_t cols) {
  TensorSpec t;
  t.name = "t" + std::to_string(m.tensors.size());
  t.role = role;
  t.layer = layer;
  t.dtype = DType::kF16;
  t.shape = rows == 1 ? std::vector<int64_t>{cols} : std::vector<int64_t>{rows, cols};
  t.size = Bytes(rows * cols * 2);
  m.tensors.push_back(t);
}

// `layers` layers whose feed-forward sizes differ when `unequal`; `d` is the width of the model.
inline ModelSpec TestModel(int layers, bool tied, std::mt19937& rng, bool unequal, int d = 64) {
  ModelSpec m;
  m.architecture = "llama";
  m.d_model = d;
  m.vocab = 1000;
  m.tied_output = tied;
  AddTensor(m, TensorRole::kTokenEmbedding, -1, m.vocab, m.d_model);
  for (int i = 0; i < layers; ++i) {
    LayerSpec l{4, 2, 16, 256};
    if (unequal) l.d_ff = static_cast<int>(64 + rng() % 512);
    m.layers.push_back(l);
    AddTensor(m, TensorRole::kAttnNorm, i, 1, d);
    AddTensor(m, TensorRole::kAttnQ, i, d, d);
    AddTensor(m, TensorRole::kAttnK, i, d / 2, d);
    AddTensor(m, TensorRole::kAttnV, i, d / 2, d);
    AddTensor(m, TensorRole::kAttnOutput, i, d, d);
    AddTensor(m, TensorRole::kFfnNorm, i, 1, d);
    AddTensor(m, TensorRole::kFfnGate, i, l.d_ff, d);
    AddTensor(m, TensorRole::kFfnUp, i, l.d_ff, d);
    AddTensor(m, TensorRole::kFfnDown, i, d, l.d_ff);
  }
  AddTensor(m, TensorRole::kOutputNorm, -1, 1, d);
  if (!tied) AddTensor(m, TensorRole::kOutput, -1, m.vocab, m.d_model);
  return m;
}

inline HostSpec CpuHost(const std::string& name, Bytes budget, double gb_per_second) {
  HostSpec host;
  host.worker = WorkerId(name);
  host.budget = host.memory_total = budget;
  host.dram_bandwidth = Bandwidth::GBPerSecond(gb_per_second);
  DeviceSpec cpu;
  cpu.id = DeviceId("cpu");
  cpu.budget = cpu.memory_total = budget;
  cpu.memory_bandwidth = host.dram_bandwidth;
  cpu.prefill_flops = gb_per_second * 1e10;
  host.devices.push_back(cpu);
  return host;
}

inline DeviceSpec Gpu(const std::string& name, Bytes budget, double gb_per_second, double h2d) {
  DeviceSpec gpu;
  gpu.id = DeviceId(name);
  gpu.kind = DeviceKind::kGpu;
  gpu.budget = gpu.memory_total = budget;
  gpu.memory_bandwidth = Bandwidth::GBPerSecond(gb_per_second);
  gpu.h2d_bandwidth = Bandwidth::GBPerSecond(h2d);
  gpu.prefill_flops = 1e14;
  return gpu;
}

inline PlacementProblem BaseProblem(ModelSpec model) {
  PlacementProblem p;
  p.model_reference = "test";
  p.model = std::move(model);
  p.context = 128;
  p.slots = 2;
  p.max_pass_tokens = 64;
  p.activations = {10_KiB, 1_KiB, 4_KiB};
  p.gpu_activations = {200_KiB, 0_KiB, 300_KiB};
  p.host_route_activations = {10_KiB, 1_KiB, 4_KiB};
  return p;
}

// Products that grow slower with the rows, from a little above or below what memory gives on.
inline std::vector<CpuRate> RandomCpuRates(std::mt19937& rng, Bandwidth dram) {
  std::vector<CpuRate> rates;
  const bool beside = rng() % 2 == 1;
  double rate = dram.bytes_per_second() * (0.7 + static_cast<double>(rng() % 50) / 100);
  for (int tokens = 1; tokens <= 256; tokens *= 2 << rng() % 3) {
    rates.push_back({tokens, Bandwidth::BytesPerSecond(rate)});
    if (beside) rates.back().beside_copies = Bandwidth::BytesPerSecond(0.8 * rate);
    rate *= 0.3 + static_cast<double>(rng() % 70) / 100;
  }
  return rates;
}

inline PlacementProblem RandomProblem(std::mt19937& rng) {
  // Wide enough that the 2 MiB that a GPU's memory comes in are small against it.
  PlacementProblem p =
      BaseProblem(TestModel(1 + static_cast<int>(rng() % 6), rng() % 2, rng, true, 1024));
  const Bytes total = p.model.weight_bytes();
  const int hosts = 1 + static_cast<int>(rng() % 3);
  for (int h = 0; h < hosts; ++h) {
    const Bytes budget(static_cast<int64_t>(static_cast<double>(total.count()) *
                                            (0.1 + static_cast<double>(rng() % 130) / 100)));
    HostSpec host = CpuHost("w" + std::to_string(h), budget, 5 + static_cast<double>(rng() % 40));
    host.devices[0].overhead = Bytes(rng() % 20000);
    if (rng() % 3 == 0) {
      host.devices[0] = Gpu("gpu0", 6_MiB + Bytes(budget.count() / 2), 500, 20);
      host.devices[0].overhead = Bytes(rng() % 20000);
    }
    p.cluster.hosts.push_back(host);
  }
  if (rng() % 4 == 0) p.pins.push_back({"blk.0.*", "w0"});
  if (rng() % 8 == 0) p.pins.push_back({"blk.*.ffn", "host"});
  if (rng() % 4 == 0) p.routes = static_cast<RoutePolicy>(1 + rng() % 3);
  for (HostSpec& host : p.cluster.hosts) {
    if (rng() % 2) host.cpu_rates = RandomCpuRates(rng, host.dram_bandwidth);
  }
  if (rng() % 3 == 0) {
    p.objective.batch = 1 + static_cast<int>(rng() % 2);
    p.objective.prompt_tokens = static_cast<int>(rng() % 128);
    p.objective.decode_tokens = static_cast<int>(rng() % 20);
    if (p.objective.prompt_tokens == 0) p.objective.decode_tokens += 1;
  }
  return p;
}

// Up to five devices on up to three workers; some workers, and some devices of one, are equal.
inline PlacementProblem RandomManyDevices(std::mt19937& rng) {
  const int layers = 1 + static_cast<int>(rng() % 3);
  PlacementProblem p = BaseProblem(TestModel(layers, rng() % 2, rng, rng() % 2, 1024));
  const auto share = [&] {
    return Bytes(p.model.weight_bytes().count() * static_cast<int64_t>(10 + rng() % 80) / 100);
  };
  while (p.cluster.hosts.size() < 3) {
    if (!p.cluster.hosts.empty() && rng() % 3 == 0) {  // another like the last
      p.cluster.hosts.push_back(p.cluster.hosts.back());
    } else {
      HostSpec host = CpuHost("", share(), 5 + static_cast<double>(rng() % 40));
      if (rng() % 2) {
        host.devices[0] = Gpu("", 8_MiB + share(), 100 + static_cast<double>(rng() % 900), 20);
      }
      if (rng() % 2) host.devices.push_back(host.devices[0]);  // two that are equal
      if (rng() % 3 == 0) host.devices.push_back(Gpu("", 8_MiB + share(), 300, 10));
      p.cluster.hosts.push_back(host);
    }
  }
  int devices = 0;
  for (size_t h = 0; h < p.cluster.hosts.size(); ++h) {
    HostSpec& host = p.cluster.hosts[h];
    host.worker = WorkerId("w" + std::to_string(h));
    Bytes cpus;
    while (host.devices.size() > 1 && devices + static_cast<int>(host.devices.size()) > 5) {
      host.devices.pop_back();
    }
    for (size_t d = 0; d < host.devices.size(); ++d, ++devices) {
      host.devices[d].id = DeviceId("d" + std::to_string(d));
      if (host.devices[d].kind == DeviceKind::kCpu) cpus += host.devices[d].budget;
    }
    host.budget = std::max(host.budget, cpus);
  }
  p.cluster.local.latency = absl::Microseconds(static_cast<int64_t>(rng() % 50));
  return p;
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_PLANNER_RANDOM_PROBLEM_H_
