// Models and machines that a stranger describes: what would break a search is refused by name.
#include "planner/query_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/planner/described.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

struct ModelCase {
  std::string expected;  // in the message
  std::function<void(ModelSpec&)> damage;
};

TEST(QueryCheckTest, AWholeModelAndAWholeMachinePass) {
  EXPECT_TRUE(CheckDescribedModel(SmallLlama()).ok()) << CheckDescribedModel(SmallLlama());
  EXPECT_TRUE(CheckDescribedCluster(DescribedDesktop()).ok());
}

TEST(QueryCheckTest, EveryFieldOfAModelThatASearchReliesOnIsNamed) {
  const std::vector<ModelCase> cases = {
      {"ModelSpec.layers", [](ModelSpec& m) { m.layers.clear(); }},
      {"ModelSpec.layers", [](ModelSpec& m) { m.layers.resize(kMostLayers + 1, m.layers[0]); }},
      {"ModelSpec.vocab", [](ModelSpec& m) { m.vocab = int64_t{1} << 30; }},
      {"ModelSpec.d_model", [](ModelSpec& m) { m.d_model = 1 << 24; }},
      {"ModelSpec.files", [](ModelSpec& m) { m.files.clear(); }},
      {"ModelSpec.name", [](ModelSpec& m) { m.name.assign(5000, 'x'); }},
      {"ModelSpec.layers[1].d_ff", [](ModelSpec& m) { m.layers[1].d_ff = 1 << 30; }},
      {"ModelSpec.layers[0].heads",
       [](ModelSpec& m) {
         m.layers[0] = {65536, 1, 65536, 8};
       }},
      {"ModelSpec.tensors[1].layer", [](ModelSpec& m) { m.tensors[1].layer = -1; }},
      {"ModelSpec.tensors[0].layer", [](ModelSpec& m) { m.tensors[0].layer = 0; }},
      {"ModelSpec.tensors[2].shape",
       [](ModelSpec& m) {
         m.tensors[2].shape = {8, 8};
       }},
      {"ModelSpec.tensors[2].size", [](ModelSpec& m) { m.tensors[2].size += Bytes(1); }},
      {"ModelSpec.tensors[2].dtype",
       [](ModelSpec& m) {
         m.d_model = 100;
         m.tensors.resize(3);
         m.tensors[0].shape = {m.vocab, 100};
         m.tensors[0].dtype = DType::kF32;
         m.tensors[0].size = Bytes(m.vocab * 400);
         m.tensors[1].shape = {100};
         m.tensors[1].size = Bytes(400);
         m.tensors[2].shape[1] = 100;
       }},
      {"ModelSpec.tensors[3].role", [](ModelSpec& m) { m.tensors[3] = m.tensors[2]; }},
      {"ModelSpec.tensors: none of role 14 in layer 0",
       [](ModelSpec& m) {
         std::erase_if(m.tensors, [](const TensorSpec& t) {
           return t.role == TensorRole::kAttnOutput && t.layer == 0;
         });
       }},
      {"ModelSpec.tensors: none of role 1",
       [](ModelSpec& m) { m.tensors.erase(m.tensors.begin()); }},
  };
  for (const ModelCase& c : cases) {
    ModelSpec model = SmallLlama();
    c.damage(model);
    const absl::Status status = CheckDescribedModel(model);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.expected;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.expected));
  }
}

TEST(QueryCheckTest, EverySpeedOfAMachineThatASearchDividesByIsNamed) {
  const std::vector<std::pair<std::string, std::function<void(ClusterSpec&)>>> cases = {
      {"ClusterSpec.hosts", [](ClusterSpec& c) { c.hosts.clear(); }},
      {"hosts[1].worker", [](ClusterSpec& c) { c.hosts.push_back(c.hosts[0]); }},
      {"hosts[0].dram_bandwidth", [](ClusterSpec& c) { c.hosts[0].dram_bandwidth = Bandwidth(); }},
      {"hosts[0].cpu_flops", [](ClusterSpec& c) { c.hosts[0].cpu_flops = 1e-300; }},
      {"devices[0].memory_bandwidth",
       [](ClusterSpec& c) { c.hosts[0].devices[0].memory_bandwidth = Bandwidth(); }},
      {"devices[0].h2d_bandwidth",
       [](ClusterSpec& c) { c.hosts[0].devices[0].h2d_bandwidth = Bandwidth(); }},
      {"devices[0].prefill_flops", [](ClusterSpec& c) { c.hosts[0].devices[0].prefill_flops = 0; }},
      {"hosts[0].devices", [](ClusterSpec& c) { c.hosts[0].devices.resize(kMostDevices + 1); }},
      {"ClusterSpec.remote.bandwidth", [](ClusterSpec& c) { c.remote.bandwidth = Bandwidth(); }},
      {"ClusterSpec.local.latency_ms", [](ClusterSpec& c) { c.local.latency = absl::Hours(2); }},
  };
  for (const auto& [expected, damage] : cases) {
    ClusterSpec cluster = DescribedDesktop();
    damage(cluster);
    const absl::Status status = CheckDescribedCluster(cluster);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << expected;
    EXPECT_THAT(std::string(status.message()), HasSubstr(expected));
  }
}

}  // namespace
}  // namespace millrace
