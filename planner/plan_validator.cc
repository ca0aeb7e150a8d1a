#include "planner/plan_validator.h"

#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "planner/plan_check.h"
#include "planner/plan_memory_check.h"
#include "proto/model_spec.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

using plan_check::Broken;
using plan_check::Memory;

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
    const std::string home = p.home == Home::kHost   ? "host"
                             : p.home == Home::kDisk ? "disk"
                                                     : "device";
    if (!home_wanted.empty() && home != home_wanted) {
      return Broken("block ", p.name, " is homed on the ", home, " against a pin to the ",
                    home_wanted);
    }
  }
  return absl::OkStatus();
}

// On disk is what streams from there: no table, nor what shares its bytes; on hosts whose disk was
// measured.
absl::Status CheckDisk(const PlacementProblem& problem, const PlacementPlan& plan,
                       const BlockPlacement& p) {
  if (p.home != Home::kDisk) return absl::OkStatus();
  const HostSpec* host = FindHost(problem, plan.stages[p.stage].worker);
  if (!(host->disk_bandwidth > Bandwidth())) {
    return Broken("block ", p.name, " is on a disk whose speed is not known");
  }
  const bool last = p.block + 1 == static_cast<int>(plan.blocks.size());
  if (p.block == 0 || (last && problem.model.tied_output)) {
    return Broken("block ", p.name, " is homed on disk, its table is looked up in memory");
  }
  return absl::OkStatus();
}

// The plan tells the runtime of every tensor that the model as held has in another type than the file, and
// of no other. None of them is read from disk, where they are as in the file.
absl::Status CheckStoredTypes(const PlacementProblem& problem, const PlacementPlan& plan) {
  std::map<std::string, DType> listed;
  for (const BlockPlacement& p : plan.blocks) {
    for (const StoredType& type : p.stored_types) listed[type.tensor] = type.dtype;
    if (p.home == Home::kDisk && !p.stored_types.empty()) {
      return Broken("block ", p.name, " is homed on disk and converted");
    }
  }
  for (const TensorSpec& t : problem.model.tensors) {
    const auto found = listed.find(t.name);
    const bool as_held = found != listed.end() && found->second == t.dtype;
    if (t.file_dtype.has_value() ? !as_held : found != listed.end()) {
      return Broken("tensor ", t.name, " is held as ", DTypeName(t.dtype),
                    " but listed otherwise or not");
    }
  }
  return absl::OkStatus();
}

// Shares stand by growing passes behind the route, each cut where tiles and super-blocks end.
absl::Status CheckShares(const PlacementProblem& problem, const PlacementPlan& plan,
                         const BlockPlacement& p) {
  if (p.cpu_shares.empty()) return absl::OkStatus();
  if (problem.routes != RoutePolicy::kSplit) {
    return Broken("block ", p.name, " is split where no block was to be");
  }
  const int units = problem.model.layers[p.block / 2 - 1].d_ff;
  int before = p.host_route_max_tokens;
  for (const CpuShare& share : p.cpu_shares) {
    if (share.max_tokens <= before || share.max_tokens > plan.max_pass_tokens) {
      return Broken("block ", p.name, " has a share for passes of ", before + 1, " to ",
                    share.max_tokens, " tokens");
    }
    if (share.units < 0 || share.units > units || (share.units % 256 != 0 && share.units != units)) {
      return Broken("block ", p.name, " is cut at ", share.units, " of ", units, " units");
    }
    before = share.max_tokens;
  }
  return absl::OkStatus();
}

// Only host-homed feed-forward blocks of GPU stages have a route, as a forced policy says.
absl::Status CheckRoute(const PlacementProblem& problem, const PlacementPlan& plan,
                        const BlockPlacement& p) {
  const int route = p.host_route_max_tokens;
  if (route < 0 || route > plan.max_pass_tokens) {
    return Broken("block ", p.name, " has a host route up to ", route, " tokens");
  }
  const bool routable = plan.stages[p.stage].device_kind == DeviceKind::kGpu &&
                        p.home == Home::kHost && p.block > 0 && p.block % 2 == 0;
  if (!routable && !p.cpu_shares.empty()) return Broken("block ", p.name, " is split");
  if (routable) MILLRACE_RETURN_IF_ERROR(CheckShares(problem, plan, p));
  if (route > 0 && (!routable || problem.routes == RoutePolicy::kStream)) {
    return Broken("block ", p.name, " takes the host route");
  }
  if (routable && problem.routes == RoutePolicy::kCpu && route != plan.max_pass_tokens) {
    return Broken("block ", p.name, " streams where the CPU was to compute it");
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
    MILLRACE_RETURN_IF_ERROR(CheckDisk(problem, plan, p));
    const bool attention = b % 2 == 1 && b + 1 < blocks;
    if (p.kv_home != Home::kDevice && (p.kv_home != Home::kHost || !attention ||
                                       plan.stages[p.stage].device_kind != DeviceKind::kGpu)) {
      return Broken("block ", p.name, " has no cache that could lie beside a GPU");
    }
    MILLRACE_RETURN_IF_ERROR(CheckRoute(problem, plan, p));
  }
  MILLRACE_RETURN_IF_ERROR(CheckStoredTypes(problem, plan));
  MILLRACE_RETURN_IF_ERROR(CheckPins(problem, plan));
  return CheckPlanMemory(problem, plan);
}

}  // namespace millrace
