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
    if (host == nullptr || FindDevice(*host, s.device) == nullptr) {
      return Broken("stage ", i, " is on ", s.worker.value(), "/", s.device.value(),
                    ", which does not exist");
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

// Bytes by memory as the blocks ask for them.
std::map<Memory, Bytes> Recompute(const PlacementProblem& problem, const PlacementPlan& plan) {
  const ModelSpec& m = problem.model;
  std::map<Memory, Bytes> sums;
  std::map<int, Bytes> ring;  // by stage: the largest host-homed block of a GPU stage
  for (const BlockPlacement& p : plan.blocks) {
    const Stage& s = plan.stages[p.stage];
    const bool gpu = s.device_kind == DeviceKind::kGpu;
    const int last = static_cast<int>(2 * m.layers.size() + 1);
    Bytes weights;
    for (const TensorSpec& t : m.tensors) {
      if (t.role == TensorRole::kRopeFactors) continue;
      int block;
      if (t.role == TensorRole::kTokenEmbedding) {
        block = 0;
        // The tied head needs the same bytes, on another device.
        if (m.tied_output && p.block == last && s.first_block > 0) weights += t.size;
      } else if (t.role == TensorRole::kOutput || t.role == TensorRole::kOutputNorm) {
        block = last;
      } else {
        const bool ffn = t.role == TensorRole::kFfnNorm || t.role == TensorRole::kFfnGate ||
                         t.role == TensorRole::kFfnUp || t.role == TensorRole::kFfnDown;
        block = 1 + 2 * t.layer + (ffn ? 1 : 0);
      }
      if (block == p.block) weights += t.size;
    }
    const bool host = gpu && p.home == Home::kHost;
    sums[{s.worker.value(), host ? "host" : s.device.value()}] += weights;
    if (host) ring[p.stage] = std::max(ring[p.stage], weights);
    if (p.block % 2 == 1 && p.block < last) {
      const LayerSpec& l = m.layers[p.block / 2];
      const DTypeInfo& kv = Info(problem.kv_type);
      const int64_t row = static_cast<int64_t>(l.head_dim) / kv.block_elements * kv.block_bytes;
      sums[{s.worker.value(), s.device.value()}] +=
          Bytes(2 * row * l.kv_heads * problem.context * problem.slots);
    }
  }
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const Stage& s = plan.stages[i];
    Bytes& device = sums[{s.worker.value(), s.device.value()}];
    device += problem.activations.body + FindDevice(*FindHost(problem, s.worker), s.device)->overhead;
    if (i == 0) device += problem.activations.first_extra;
    if (i + 1 == plan.stages.size()) device += problem.activations.last_extra;
    device += ring[static_cast<int>(i)] * 2;
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
  }
  MILLRACE_RETURN_IF_ERROR(CheckPins(problem, plan));
  return CheckMemory(problem, plan);
}

}  // namespace millrace
