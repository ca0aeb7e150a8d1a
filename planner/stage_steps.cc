#include "planner/stage_steps.h"

#include "planner/objective_passes.h"
#include "proto/stream_layout.h"

namespace millrace {
namespace {

double Share(Bytes part, Bytes all) {
  return all > Bytes(0) ? static_cast<double>(part.count()) / static_cast<double>(all.count()) : 1;
}

class StepList {
 public:
  void AddResident(double seconds) {
    const bool extend = !steps_.empty() && steps_.back().copied <= Bytes(0) && !last_on_cpu_;
    if (!extend) steps_.push_back({});
    steps_.back().fixed_seconds += seconds;
    last_on_cpu_ = false;
  }
  void AddOnCpu(double hop, Bytes bytes, double compute) {
    steps_.push_back({hop, bytes, compute, Bytes(0), Bytes(0), 0});
    last_on_cpu_ = true;
  }
  // Beside the steps up to EndBeside.
  void BeginBeside(double hop, Bytes bytes, double compute) {
    AddOnCpu(hop, bytes, compute);
    steps_.back().cpu_beside = true;
  }
  void EndBeside(double hop) {
    steps_.push_back({hop, Bytes(0), 0, Bytes(0), Bytes(0), 0});
    steps_.back().joins = true;
    last_on_cpu_ = true;
  }
  void AddStreamed(double seconds, Bytes copied, Bytes ring, double copy_limit) {
    steps_.push_back({seconds, Bytes(0), 0, copied, ring, copy_limit});
    last_on_cpu_ = false;
  }
  std::vector<PassStep> Take() { return std::move(steps_); }

 private:
  std::vector<PassStep> steps_;
  bool last_on_cpu_ = false;
};

// On the CPU, streamed, or some units there while the others stream.
void AddHostHomed(const StageView& stage, const StageOffload& offload, PassShape pass, int b,
                  double on_device, StepList& steps) {
  const size_t i = static_cast<size_t>(b - stage.first);
  const Block& block = stage.memory.blocks()[b];
  const int all = stage.memory.Units(b);
  const int units = all > 0 ? offload.WorkOf(i).Units(pass.tokens, all) : 0;
  const double hops = stage.cost.HostHopSeconds(stage.device, pass);
  const double compute = units > 0 ? stage.cost.HostComputeSeconds(stage.host, b, pass) : 0;
  if (units > 0 && units == all) return steps.AddOnCpu(hops, block.weights, compute);
  const double part = units > 0 ? static_cast<double>(units) / all : 0;
  if (units > 0) {
    const Bytes read(static_cast<int64_t>(part * static_cast<double>(block.weights.count())));
    steps.BeginBeside(hops / 2, read, part * compute);
  }
  const std::vector<StreamedGroup> groups = StreamedGroupsOf(stage.problem.model, block, units);
  Bytes streamed;
  for (const StreamedGroup& g : groups) streamed += g.raw;
  const double limit = offload.OnDisk(i) ? stage.host.disk_bandwidth.bytes_per_second() : 0;
  // The CPU's part of the sum crosses the link as weights do, and takes its turn from them.
  const Bytes sum(units > 0 ? int64_t{4} * stage.problem.model.d_model * pass.tokens : 0);
  for (const StreamedGroup& g : groups) {
    const Bytes copied = &g == &groups.back() ? g.raw + sum : g.raw;
    steps.AddStreamed((1 - part) * on_device * Share(g.raw, streamed), copied, g.tiled, limit);
  }
  if (units > 0) steps.EndBeside(hops / 2);
}

}  // namespace

std::vector<PassStep> StageSteps(const StageView& stage, const StageOffload& offload,
                                 PassShape pass) {
  StepList steps;
  for (int b = stage.first; b < stage.end; ++b) {
    const size_t i = static_cast<size_t>(b - stage.first);
    const Block& block = stage.memory.blocks()[b];
    double on_device = stage.cost.DeviceSeconds(stage.host, stage.device, b, pass);
    if (offload.KvOnHost(i)) on_device += stage.cost.HostKvSeconds(stage.device, b, pass);
    if (offload.host_home.empty() || !offload.host_home[i]) {
      steps.AddResident(on_device);
    } else if (block.kind == BlockKind::kEmbedding) {
      steps.AddResident(stage.cost.HostEmbedSeconds(stage.device, pass));
    } else {
      AddHostHomed(stage, offload, pass, b, on_device, steps);
    }
  }
  return steps.Take();
}

SteadyPass SteadyStagePass(const StageView& stage, const StageOffload& offload, PassShape pass) {
  return SimulateSteadyPass(StageSteps(stage, offload, pass), stage.rates(), offload.ring);
}

double StagePrefillSeconds(const StageView& stage, const StageOffload& offload, int tokens) {
  double seconds = 0;
  for (const auto& [shape, passes] : PromptPasses(tokens, stage.problem.max_pass_tokens)) {
    const std::vector<PassStep> steps = StageSteps(stage, offload, shape);
    seconds += SimulatePasses(steps, stage.rates(), offload.ring, passes).ends.back();
  }
  return seconds;
}

double ObjectiveSeconds(const StageView& stage, const StageOffload& offload) {
  const Objective& o = stage.problem.objective;
  double seconds = 0;
  if (o.prompt_tokens > 0) {
    seconds += o.batch * StagePrefillSeconds(stage, offload, o.prompt_tokens);
  }
  if (o.decode_tokens > 0) {
    const WeightedPass pass = DecodePasses(stage.problem);
    seconds += pass.weight * SteadyStagePass(stage, offload, pass.shape).seconds;
  }
  return seconds;
}

}  // namespace millrace
