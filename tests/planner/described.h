// A small model and a machine with one card, as clients describe them, and activations made up.
#ifndef MILLRACE_TESTS_PLANNER_DESCRIBED_H_
#define MILLRACE_TESTS_PLANNER_DESCRIBED_H_

#include "planner/hardware_profiles.h"
#include "planner/plan_query.h"
#include "tests/planner/llama_70b.h"

namespace millrace {

// The first layers of a 70B: 6 layers, 3.7 GiB.
inline ModelSpec SmallLlama(int layers = 6) {
  ModelSpec m = Llama70B();
  m.name = "small";
  m.context_length = 8192;
  m.norm_epsilon = 1e-5f;
  m.rope.dims = 128;
  m.rope.base = 10000;
  m.layers.resize(layers);
  std::erase_if(m.tensors, [layers](const TensorSpec& t) { return t.layer >= layers; });
  m.files = {{"small.gguf", m.weight_bytes()}};
  return m;
}

inline ClusterSpec DescribedDesktop(Bytes gpu = 3_GiB) {
  ClusterSpec cluster;
  cluster.hosts.push_back(DescribedHost(*FindHostProfile("ddr5-desktop"), 32_GiB));
  HostSpec& host = cluster.hosts.front();
  host.devices.push_back(DescribedGpu(*FindGpuProfile("rtx-3090"), 0, PcieSlot{4, 16}));
  host.devices.front().budget = gpu;
  return cluster;
}

inline PassActivations MadeUpActivations(int tokens, bool direct) {
  ActivationNeeds cpu{Bytes(tokens * 65536), 1_MiB, 2_MiB};
  ActivationNeeds gpu{Bytes(tokens * 131072) + (direct ? 0_MiB : 300_MiB), 1_MiB, 3_MiB};
  return {cpu, gpu, {Bytes(std::min(tokens, 128) * 65536), 0_MiB, 0_MiB}};
}

// A question about a model, as a command line asks it.
inline PlanQuery MadeUpQuery(const ModelSpec& model, int context, int max_pass_tokens) {
  PlanQuery query;
  query.problem.model_reference = "small";
  query.problem.model = model;
  query.problem.context = context;
  query.max_pass_tokens = max_pass_tokens;
  query.activations_at = [](const ClusterSpec& cluster, int tokens) {
    return MadeUpActivations(tokens, AllGpusMultiplyDirectly(cluster));
  };
  return query;
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_PLANNER_DESCRIBED_H_
