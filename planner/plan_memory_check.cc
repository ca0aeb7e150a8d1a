#include "planner/plan_memory_check.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "planner/plan_check.h"
#include "proto/model_spec.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

using plan_check::Broken;
using plan_check::Memory;

const DeviceSpec* FindDevice(const PlacementProblem& problem, const Stage& stage) {
  for (const HostSpec& h : problem.cluster.hosts) {
    for (const DeviceSpec& d : h.devices) {
      if (h.worker == stage.worker && d.id == stage.device) return &d;
    }
  }
  return nullptr;
}

int64_t UpTo(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// A tensor on a GPU: vectors as f32, the looked-up table as in the file, other matrices in tiles of
// 16 rows by one K block or 64 columns, F32 as two bytes a value; every one from a multiple of 256
// bytes on.
int64_t OnGpu(const TensorSpec& t, bool table) {
  const DTypeInfo& type = Info(t.dtype);
  if (t.shape.size() != 2) return UpTo(t.shape.back() * 4, 256);
  if (table) return UpTo(t.size.count(), 256);
  const int64_t wide = type.block_elements == 256 ? 256 : 64;
  const int64_t tiles = UpTo(t.shape[0], 16) / 16 * (UpTo(t.shape[1], wide) / wide);
  const int64_t block_bytes = t.dtype == DType::kF32 ? 2 : type.block_bytes;
  return UpTo(tiles * 16 * (wide / type.block_elements) * block_bytes, 256);
}

int BlockOf(const TensorSpec& t, int last) {
  switch (t.role) {
    case TensorRole::kRopeFactors:
      return -1;
    case TensorRole::kTokenEmbedding:
      return 0;
    case TensorRole::kOutput:
    case TensorRole::kOutputNorm:
      return last;
    case TensorRole::kFfnNorm:
    case TensorRole::kFfnGate:
    case TensorRole::kFfnUp:
    case TensorRole::kFfnDown:
      return 2 + 2 * t.layer;
    default:
      return 1 + 2 * t.layer;
  }
}

// Units that the CPU computes of a feed-forward block with `all` in a pass of `tokens`.
int OnCpu(const BlockPlacement& p, int tokens, int all) {
  if (tokens <= p.host_route_max_tokens) return all;
  const auto share = std::find_if(p.cpu_shares.begin(), p.cpu_shares.end(),
                                  [&](const CpuShare& s) { return s.max_tokens >= tokens; });
  return share == p.cpu_shares.end() ? 0 : share->units;
}

// What the CPU does in passes of every size.
struct CpuPart {
  int least_units = 0;  // of any pass
  int rows = 0;         // of the largest pass that has some
};

CpuPart PartOf(const PlacementPlan& plan, const BlockPlacement& p, int all) {
  std::vector<int> sizes = {1, p.host_route_max_tokens, p.host_route_max_tokens + 1,
                            plan.max_pass_tokens};
  for (const CpuShare& s : p.cpu_shares) {
    sizes.push_back(s.max_tokens);
    sizes.push_back(s.max_tokens + 1);
  }
  CpuPart part{all, 0};
  for (int tokens : sizes) {
    if (tokens < 1 || tokens > plan.max_pass_tokens) continue;
    const int units = OnCpu(p, tokens, all);
    part.least_units = std::min(part.least_units, units);
    if (units > 0) part.rows = std::max(part.rows, tokens);
  }
  return part;
}

// The part of a matrix that streams where the CPU computes the first `units` of its block: rows of
// gate and up, columns of down.
TensorSpec Streamed(const TensorSpec& t, int units) {
  TensorSpec part = t;
  if (t.role == TensorRole::kFfnDown) {
    part.shape[1] -= units;
  } else if (t.role == TensorRole::kFfnGate || t.role == TensorRole::kFfnUp) {
    part.shape[0] -= units;
  }
  const DTypeInfo& type = Info(t.dtype);
  part.size =
      Bytes(part.shape[0] * part.shape[1] / type.block_elements * int64_t{type.block_bytes});
  return part;
}

// What one placed block takes.
struct BlockBytes {
  int64_t home = 0;     // where it is homed, in the layout there
  int64_t vectors = 0;  // norms and biases as held on a GPU
  // Matrices of its first and second op: as in the file, and as on a GPU.
  int64_t raw[2] = {0, 0}, tiled[2] = {0, 0};
};

// `units`: those that never stream.
BlockBytes Measure(const ModelSpec& m, const PlacementPlan& plan, const BlockPlacement& p,
                   int units) {
  const Stage& s = plan.stages[p.stage];
  const int last = static_cast<int>(2 * m.layers.size() + 1);
  BlockBytes bytes;
  for (const TensorSpec& t : m.tensors) {
    const bool tied_head =
        m.tied_output && t.role == TensorRole::kTokenEmbedding && p.block == last;
    if (BlockOf(t, last) != p.block && !tied_head) continue;
    if (t.shape.size() != 2) {
      bytes.vectors += OnGpu(t, false);
    } else if (p.block > 0) {
      const int op = t.role == TensorRole::kAttnOutput || t.role == TensorRole::kFfnDown;
      const TensorSpec part = Streamed(t, units);
      bytes.raw[op] += part.size.count();
      bytes.tiled[op] += OnGpu(part, false);
    }
    if (p.home == Home::kDevice) {
      bytes.home += OnGpu(t, p.block == 0);
    } else if (!tied_head || s.first_block > 0 || plan.blocks[0].home != Home::kHost) {
      // else the table in host memory serves both
      bytes.home += t.size.count();
    }
  }
  return bytes;
}

int64_t CacheBytes(const PlacementProblem& problem, int block) {
  if (block % 2 == 0 || block / 2 >= static_cast<int>(problem.model.layers.size())) return 0;
  const LayerSpec& l = problem.model.layers[block / 2];
  const DTypeInfo& kv = Info(problem.kv_type);
  const int64_t row = static_cast<int64_t>(l.head_dim) / kv.block_elements * kv.block_bytes;
  return 2 * UpTo(row * l.kv_heads * problem.context * problem.slots, 256);
}

// One stage's bytes as its blocks ask for them.
struct StageSums {
  int64_t weights = 0, cache = 0;          // on the device
  int64_t host = 0;                        // weights beside a GPU
  int64_t host_cache = 0;                  // keys and values there
  int64_t raw_group = 0, tiled_group = 0;  // the largest that ever streams
  int host_rows = 0;                       // largest pass that the CPU computes for a GPU
  bool hops = false;                       // hidden states cross between host and GPU
  bool disk = false;                       // some weights are read from disk
};

StageSums SumStage(const PlacementProblem& problem, const PlacementPlan& plan, const Stage& s) {
  StageSums sums;
  for (int b = s.first_block; b < s.end_block; ++b) {
    const BlockPlacement& p = plan.blocks[b];
    const bool feed_forward = b > 0 && b % 2 == 0;
    const int all = feed_forward ? problem.model.layers[b / 2 - 1].d_ff : 0;
    const CpuPart cpu = feed_forward ? PartOf(plan, p, all) : CpuPart();
    const BlockBytes bytes = Measure(problem.model, plan, p, cpu.least_units);
    (p.kv_home == Home::kHost ? sums.host_cache : sums.cache) += CacheBytes(problem, b);
    if (s.device_kind == DeviceKind::kCpu || p.home == Home::kDevice) {
      sums.weights += bytes.home;
      continue;
    }
    sums.disk = sums.disk || p.home == Home::kDisk;
    if (p.home == Home::kHost) sums.host += bytes.home;
    sums.weights += bytes.vectors;
    sums.host_rows = std::max(sums.host_rows, cpu.rows);
    sums.hops = sums.hops || b == 0 || cpu.rows > 0;
    if (feed_forward && cpu.least_units == all) continue;
    for (int op = 0; op < 2; ++op) {
      sums.raw_group = std::max(sums.raw_group, bytes.raw[op]);
      sums.tiled_group = std::max(sums.tiled_group, bytes.tiled[op]);
    }
  }
  return sums;
}

int64_t HostBytes(const PlacementProblem& problem, const StageSums& sums) {
  int64_t bytes = sums.host + sums.host_cache;
  if (sums.hops) bytes += int64_t{8} * problem.max_pass_tokens * problem.model.d_model;
  // Eight buffers for reads of 16 MiB, a page more at both ends.
  if (sums.disk) bytes += int64_t{8} * ((16 << 20) + 2 * 4096);
  if (sums.host_rows > kMaxHostRouteTokens) {
    bytes += problem.activations.body.count();
  } else if (sums.host_rows > 0) {
    bytes += problem.host_route_activations.body.count();
  }
  return bytes;
}

// Bytes by memory as the blocks ask for them.
std::map<Memory, Bytes> Recompute(const PlacementProblem& problem, const PlacementPlan& plan) {
  std::map<Memory, Bytes> needed;
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const Stage& s = plan.stages[i];
    const bool gpu = s.device_kind == DeviceKind::kGpu;
    const StageSums sums = SumStage(problem, plan, s);
    const ActivationNeeds& a = gpu ? problem.gpu_activations : problem.activations;
    int64_t transient = a.body.count();
    if (i == 0) transient += a.first_extra.count();
    if (i + 1 == plan.stages.size()) transient += a.last_extra.count();
    const int64_t staging = std::min<int64_t>(64 << 20, UpTo(sums.raw_group, 256));
    const int64_t grain = gpu ? 2 << 20 : 1;
    needed[{s.worker.value(), s.device.value()}] +=
        Bytes(UpTo(sums.weights, grain) + UpTo(sums.cache, grain) + UpTo(transient, grain) +
              UpTo(s.stream_ring.count() + staging, grain)) +
        FindDevice(problem, s)->overhead;
    // Page tables: an eight-byte entry for each page of locked memory.
    const int64_t pages = gpu ? UpTo(sums.host + sums.host_cache, 4096) / 4096 : 0;
    needed[{s.worker.value(), s.device.value()}] += Bytes(UpTo(8 * pages, 2 << 20));
    if (gpu) needed[{s.worker.value(), "host"}] += Bytes(HostBytes(problem, sums));
  }
  return needed;
}

absl::Status CheckRings(const PlacementProblem& problem, const PlacementPlan& plan) {
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const StageSums sums = SumStage(problem, plan, plan.stages[i]);
    const int64_t ring = plan.stages[i].stream_ring.count();
    if (ring < sums.tiled_group || (sums.tiled_group == 0 && ring != 0)) {
      return Broken("the ring of stage ", i, " has ", ring, " bytes, its largest streamed group ",
                    sums.tiled_group);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPlanMemory(const PlacementProblem& problem, const PlacementPlan& plan) {
  MILLRACE_RETURN_IF_ERROR(CheckRings(problem, plan));
  const std::map<Memory, Bytes> needed = Recompute(problem, plan);
  std::map<Memory, Bytes> ledger;
  for (const LedgerEntry& e : plan.ledger) ledger[{e.worker.value(), e.memory}] += e.bytes;
  for (const auto& [memory, bytes] : needed) {
    if (ledger[memory] != bytes) {
      return Broken("the ledger of ", memory.first, "/", memory.second, " says ",
                    ledger[memory].count(), " bytes, the blocks take ", bytes.count());
    }
  }
  for (const HostSpec& host : problem.cluster.hosts) {
    Bytes on_host = ledger[{host.worker.value(), "host"}];
    for (const DeviceSpec& d : host.devices) {
      const Bytes used = ledger[{host.worker.value(), d.id.value()}];
      if (used > d.budget) {
        return Broken(host.worker.value(), "/", d.id.value(), " takes ", FormatBytes(used),
                      " of a budget of ", FormatBytes(d.budget));
      }
      if (d.kind == DeviceKind::kCpu) on_host += used;
    }
    if (on_host > host.budget) {
      return Broken("host memory of ", host.worker.value(), " takes ", FormatBytes(on_host),
                    " of a budget of ", FormatBytes(host.budget));
    }
  }
  return absl::OkStatus();
}

}  // namespace millrace
