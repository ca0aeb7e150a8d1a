#include "planner/plan_validator.h"

#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/model_spec.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

using Memory = std::pair<std::string, std::string>;  // worker, memory

template <typename... Parts>
absl::Status Broken(const Parts&... parts) {
  return absl::InternalError(absl::StrCat("plan: ", parts...));
}

const HostSpec* FindHost(const PlacementProblem& problem, const WorkerId& worker) {
  for (const HostSpec& h : problem.cluster.hosts) {
    if (h.worker == worker) return &h;
  }
  return nullptr;
}

const DeviceSpec* FindDevice(const HostSpec& host, const DeviceId& device) {
  for (const DeviceSpec& d : host.devices) {
    if (d.id == device) return &d;
  }
  return nullptr;
}

absl::Status CheckStages(const PlacementProblem& problem, const PlacementPlan& plan, int blocks) {
  std::set<Memory> used;
  int at = 0;
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const Stage& s = plan.stages[i];
    if (s.first_block != at || s.end_block <= s.first_block) {
      return Broken("stage ", i, " covers blocks ", s.first_block, " to ", s.end_block,
                    ", expected to begin at ", at);
    }
    at = s.end_block;
    const HostSpec* host = FindHost(problem, s.worker);
    const DeviceSpec* device = host == nullptr ? nullptr : FindDevice(*host, s.device);
    if (device == nullptr || device->kind != s.device_kind) {
      return Broken("stage ", i, " is on ", s.worker.value(), "/", s.device.value(),
                    ", which does not exist or is of another kind");
    }
    if (!used.insert({s.worker.value(), s.device.value()}).second) {
      return Broken("device ", s.worker.value(), "/", s.device.value(), " holds two stages");
    }
  }
  if (at != blocks) return Broken("stages end at block ", at, " of ", blocks);
  return absl::OkStatus();
}

// The pin's glob as a regular expression: another way to the same meaning.
bool PinMatches(const std::string& glob, const std::string& name) {
  std::string pattern;
  for (char c : glob) {
    if (c == '*') {
      pattern += ".*";
    } else if (c == '?') {
      pattern += '.';
    } else {
      if (std::string("\\^$.|+()[]{}").find(c) != std::string::npos) pattern += '\\';
      pattern += c;
    }
  }
  return std::regex_match(name, std::regex(pattern));
}

absl::Status CheckPins(const PlacementProblem& problem, const PlacementPlan& plan) {
  for (const BlockPlacement& p : plan.blocks) {
    const Stage& s = plan.stages[p.stage];
    std::string home_wanted;
    for (const Pin& pin : problem.pins) {
      if (!PinMatches(pin.pattern, p.name)) continue;
      if (pin.target == "host" || pin.target == "device") {
        home_wanted = pin.target;  // the last one counts
        continue;
      }
      if (pin.target != s.worker.value() && pin.target != s.device.value() &&
          pin.target != s.worker.value() + "/" + s.device.value()) {
        return Broken("block ", p.name, " is on ", s.worker.value(), "/", s.device.value(),
                      " against pin ", pin.pattern, "=", pin.target);
      }
    }
    const std::string home = p.home == Home::kHost ? "host" : "device";
    if (!home_wanted.empty() && home != home_wanted) {
      return Broken("block ", p.name, " is homed on the ", home, " against a pin to the ",
                    home_wanted);
    }
  }
  return absl::OkStatus();
}

int64_t UpTo(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// A tensor on a GPU: vectors as f32, the looked-up table as in the file, other matrices in tiles of
// 16 rows by one K block or 64 columns, F32 as two bytes a value; every one from a multiple of 256 bytes on.
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

// What one placed block takes. `file`: as stored; `memory`: where it is homed, in the layout there.
struct BlockBytes {
  int64_t file = 0, memory = 0;
};

BlockBytes Measure(const ModelSpec& m, const PlacementPlan& plan, const BlockPlacement& p) {
  const Stage& s = plan.stages[p.stage];
  const int last = static_cast<int>(2 * m.layers.size() + 1);
  BlockBytes bytes;
  for (const TensorSpec& t : m.tensors) {
    const bool tied_head =
        m.tied_output && t.role == TensorRole::kTokenEmbedding && p.block == last;
    if (BlockOf(t, last) != p.block && !tied_head) continue;
    bytes.file += t.size.count();
    if (p.home == Home::kDevice) {
      bytes.memory += OnGpu(t, p.block == 0);
    } else if (!tied_head || s.first_block > 0 || plan.blocks[0].home != Home::kHost) {
      // else the table in host memory serves both
      bytes.memory += t.size.count();
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

// Bytes by memory as the blocks ask for them.
std::map<Memory, Bytes> Recompute(const PlacementProblem& problem, const PlacementPlan& plan) {
  std::map<Memory, Bytes> sums;
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const Stage& s = plan.stages[i];
    const bool gpu = s.device_kind == DeviceKind::kGpu;
    int64_t weights = 0, cache = 0, slot = 0;  // slot: of the ring that host-homed blocks stream to
    for (int b = s.first_block; b < s.end_block; ++b) {
      const BlockBytes bytes = Measure(problem.model, plan, plan.blocks[b]);
      cache += CacheBytes(problem, b);
      if (gpu && plan.blocks[b].home == Home::kHost) {
        sums[{s.worker.value(), "host"}] += Bytes(bytes.memory);
        slot = std::max(slot, bytes.file);
      } else {
        weights += bytes.memory;
      }
    }
    const ActivationNeeds& a = gpu ? problem.gpu_activations : problem.activations;
    int64_t transient = a.body.count();
    if (i == 0) transient += a.first_extra.count();
    if (i + 1 == plan.stages.size()) transient += a.last_extra.count();
    const int64_t grain = gpu ? 2 << 20 : 1;
    sums[{s.worker.value(), s.device.value()}] +=
        Bytes(UpTo(weights, grain) + UpTo(cache, grain) + UpTo(transient, grain) +
              UpTo(2 * slot, grain)) +
        FindDevice(*FindHost(problem, s.worker), s.device)->overhead;
  }
  return sums;
}

absl::Status CheckMemory(const PlacementProblem& problem, const PlacementPlan& plan) {
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

}  // namespace

absl::Status ValidatePlan(const PlacementProblem& problem, const PlacementPlan& plan) {
  const int blocks = static_cast<int>(2 * problem.model.layers.size() + 2);
  if (plan.format_version != kPlanFormatVersion) {
    return Broken("format version ", plan.format_version, ", ", kPlanFormatVersion, " expected");
  }
  if (plan.model_fingerprint != FingerprintOf(problem.model)) {
    return Broken("made for another model (fingerprint ", plan.model_fingerprint, ")");
  }
  if (plan.context != problem.context || plan.slots != problem.slots ||
      plan.kv_type != problem.kv_type || plan.max_pass_tokens != problem.max_pass_tokens) {
    return Broken("context, slots, kv_type or max_pass_tokens differ from the problem's");
  }
  MILLRACE_RETURN_IF_ERROR(CheckStages(problem, plan, blocks));
  if (static_cast<int>(plan.blocks.size()) != blocks) {
    return Broken(plan.blocks.size(), " placements for ", blocks, " blocks");
  }
  for (int b = 0; b < blocks; ++b) {
    const BlockPlacement& p = plan.blocks[b];
    if (p.block != b || p.stage < 0 || p.stage >= static_cast<int>(plan.stages.size()) ||
        b < plan.stages[p.stage].first_block || b >= plan.stages[p.stage].end_block) {
      return Broken("placement ", b, " is for block ", p.block, " in stage ", p.stage);
    }
    if (plan.stages[p.stage].device_kind == DeviceKind::kCpu && p.home != Home::kHost) {
      return Broken("block ", p.name, " of a CPU stage is not homed on the host");
    }
    if (plan.stages[p.stage].device_kind == DeviceKind::kGpu && p.home != Home::kDevice &&
        !problem.gpu_host_homes) {
      return Broken("block ", p.name, " of a GPU stage is homed on the host");
    }
  }
  MILLRACE_RETURN_IF_ERROR(CheckPins(problem, plan));
  return CheckMemory(problem, plan);
}

}  // namespace millrace
