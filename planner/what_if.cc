#include "planner/what_if.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "planner/home_counts.h"
#include "planner/plan_report.h"
#include "planner/plan_words.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

bool IsGpu(const DeviceSpec& device) { return device.kind == DeviceKind::kGpu; }
bool IsCpu(const DeviceSpec& device) { return device.kind == DeviceKind::kCpu; }

// Next to the cards there are, on a link no faster than theirs.
void AddGpu(const GpuProfile& profile, HostSpec& host) {
  std::erase_if(host.devices, IsCpu);
  DeviceSpec gpu = DescribedGpu(profile, static_cast<int>(host.devices.size()), {profile.pcie, 16});
  for (const DeviceSpec& other : host.devices) {
    gpu.h2d_bandwidth = std::min(gpu.h2d_bandwidth, other.h2d_bandwidth);
  }
  host.devices.push_back(std::move(gpu));
}

void SetDeviceBudget(Bytes budget, DeviceSpec& device) {
  device.budget = budget;
  device.memory_total = std::max(device.memory_total, budget);
}

// A CPU that may use all that its host may goes on doing so.
void SetHostBudget(Bytes budget, HostSpec& host) {
  for (DeviceSpec& device : host.devices) {
    if (IsCpu(device) && device.budget == host.budget) SetDeviceBudget(budget, device);
  }
  host.budget = budget;
  host.memory_total = std::max(host.memory_total, budget);
}

absl::Status SetBudget(const std::string& of, Bytes budget, ClusterSpec& cluster) {
  bool found = false;
  std::set<std::string> known = {"host"};
  for (HostSpec& host : cluster.hosts) {
    if (of == "host") SetHostBudget(budget, host);
    found |= of == "host";
    for (DeviceSpec& device : host.devices) {
      known.insert(device.id.value());
      if (device.id.value() != of && !(of == "gpu" && IsGpu(device))) continue;
      SetDeviceBudget(budget, device);
      found = true;
    }
  }
  if (found) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("no memory '", of, "' there; there is ", absl::StrJoin(known, ", ")));
}

// Reading goes faster, and with it one row's products; what more rows add is arithmetic.
void SetDram(Bandwidth dram, HostSpec& host) {
  const double before = host.dram_bandwidth.bytes_per_second();
  if (before <= 0) return;
  const double factor = dram.bytes_per_second() / before;
  const auto faster = [factor](double rate, double one) {
    return 1 / (1 / rate - 1 / one + 1 / (one * factor));
  };
  if (!host.cpu_rates.empty()) {
    const CpuRate first = host.cpu_rates.front();
    for (CpuRate& rate : host.cpu_rates) {
      rate.weights = Bandwidth::BytesPerSecond(
          faster(rate.weights.bytes_per_second(), first.weights.bytes_per_second()));
      if (rate.beside_copies <= Bandwidth()) continue;
      rate.beside_copies = Bandwidth::BytesPerSecond(
          faster(rate.beside_copies.bytes_per_second(), first.beside_copies.bytes_per_second()));
    }
  }
  host.dram_bandwidth = dram;
  for (DeviceSpec& device : host.devices) {
    if (IsCpu(device)) device.memory_bandwidth = device.memory_bandwidth * factor;
  }
}

std::vector<DeviceSpec*> Gpus(ClusterSpec& cluster) {
  std::vector<DeviceSpec*> gpus;
  for (HostSpec& host : cluster.hosts) {
    for (DeviceSpec& device : host.devices) {
      if (IsGpu(device)) gpus.push_back(&device);
    }
  }
  return gpus;
}

std::string Rate(double per_second) { return absl::StrFormat("%.1f tokens/s", per_second); }

std::string CountText(const BlockCount& count) {
  if (count.blocks == 0) return "-";
  return absl::StrFormat("%d blocks, %s", count.blocks, FormatBytes(count.weights));
}

using Rows = std::vector<std::pair<std::string, std::string>>;  // label, figure

Rows RowsOf(const PlacementPlan& plan) {
  const Prediction& p = plan.predicted;
  const HomeCounts homes = CountHomes(plan);
  Rows rows = {{"1 sequence decodes", Rate(p.decode_tokens_per_second)}};
  if (p.decode_batch > 1) {
    rows.emplace_back(absl::StrCat(p.decode_batch, " together"), Rate(p.batch_tokens_per_second));
  }
  rows.emplace_back(absl::StrCat("first token of ", p.prompt_tokens), RenderMilliseconds(p.ttft));
  rows.emplace_back("largest pass", absl::StrCat(plan.max_pass_tokens, " tokens"));
  rows.emplace_back("resident on GPUs", CountText(homes.resident));
  rows.emplace_back("streamed to GPUs", CountText(homes.streamed));
  rows.emplace_back("by the CPU", CountText(homes.cpu));
  rows.emplace_back("split, CPU and stream", CountText(homes.split));
  rows.emplace_back("read from disk", CountText(homes.disk));
  if (homes.caches_in_ram > 0) {
    rows.emplace_back("KV cache in RAM", absl::StrCat(homes.caches_in_ram, " layers"));
  }
  for (const LedgerTotal& t : plan.totals) {
    rows.emplace_back(absl::StrCat(t.worker.value(), "/", t.memory),
                      absl::StrFormat("%s of %s", FormatBytes(t.used), FormatBytes(t.budget)));
  }
  return rows;
}

// Null where the row is only in the other plan.
const std::string* Find(const Rows& rows, const std::string& label) {
  for (const auto& [name, figure] : rows) {
    if (name == label) return &figure;
  }
  return nullptr;
}

std::string Limit(const SolveResult& result) {
  return result.plan.has_value() ? absl::StrCat("limited by ", result.plan->binding_constraint)
                                 : absl::StrCat("does not fit: ", result.infeasible->summary);
}

// Of one resource everywhere; nothing where no one has it or uses it.
struct Bandwidths {
  absl::string_view name;
  bool used = false;
  std::function<void(ClusterSpec&)> raise;
};

constexpr double kMore = 1.1;

std::vector<Bandwidths> BandwidthsOf(ClusterSpec& cluster, const HomeCounts& homes) {
  const bool gpu = !Gpus(cluster).empty();
  const bool beside = homes.streamed.blocks + homes.split.blocks + homes.disk.blocks > 0;
  const bool dram = beside || homes.cpu.blocks > 0;
  return {{"HBM of the GPUs", gpu && homes.resident.blocks > 0,
           [](ClusterSpec& c) {
             for (DeviceSpec* g : Gpus(c)) g->memory_bandwidth = g->memory_bandwidth * kMore;
           }},
          {"links to the GPUs", gpu && (beside || homes.cpu.blocks + homes.caches_in_ram > 0),
           [](ClusterSpec& c) {
             for (DeviceSpec* g : Gpus(c)) g->h2d_bandwidth = g->h2d_bandwidth * kMore;
           }},
          {"DRAM", dram,
           [](ClusterSpec& c) {
             for (HostSpec& h : c.hosts) SetDram(h.dram_bandwidth * kMore, h);
           }},
          {"disk", homes.disk.blocks > 0, [](ClusterSpec& c) {
             for (HostSpec& h : c.hosts) h.disk_bandwidth = h.disk_bandwidth * kMore;
           }}};
}

}  // namespace

absl::StatusOr<ClusterSpec> Changed(ClusterSpec cluster, const MachineChange& change) {
  for (const GpuProfile* profile : change.more_gpus) AddGpu(*profile, cluster.hosts.front());
  for (const auto& [of, budget] : change.budgets) {
    MILLRACE_RETURN_IF_ERROR(SetBudget(of, budget, cluster));
  }
  if (change.link.has_value()) {
    const std::vector<DeviceSpec*> gpus = Gpus(cluster);
    if (gpus.empty()) return absl::InvalidArgumentError("no GPU there whose link could change");
    for (DeviceSpec* gpu : gpus) gpu->h2d_bandwidth = *change.link;
  }
  for (HostSpec& host : cluster.hosts) {
    if (change.dram.has_value()) SetDram(*change.dram, host);
    host.disk_bandwidth = change.disk.value_or(host.disk_bandwidth);
  }
  return cluster;
}

std::string RenderSideBySide(const SolveResult& as_is, const SolveResult& changed) {
  const Rows left = as_is.plan ? RowsOf(*as_is.plan) : Rows();
  const Rows right = changed.plan ? RowsOf(*changed.plan) : Rows();
  std::string out = absl::StrFormat("%-24s %24s %24s\n", "", "as it is", "what if");
  const auto row = [&out](const std::string& label, const std::string* a, const std::string* b) {
    const std::string now = a ? *a : "-", then = b ? *b : "-";
    if (now == "-" && then == "-") return;
    absl::StrAppendFormat(&out, "%-24s %24s %24s\n", label, now, then);
  };
  for (const auto& [label, figure] : left) row(label, &figure, Find(right, label));
  for (const auto& [label, figure] : right) {
    if (Find(left, label) == nullptr) row(label, nullptr, &figure);
  }
  absl::StrAppend(&out, WrapAt(absl::StrCat("\nas it is: ", Limit(as_is)), 100));
  absl::StrAppend(&out, WrapAt(absl::StrCat("\nwhat if: ", Limit(changed)), 100), "\n");
  return out;
}

absl::StatusOr<std::vector<Gain>> GainsOfMore(const ClusterSpec& cluster, const PlacementPlan& plan,
                                              const PlanOn& plan_on) {
  std::vector<Gain> gains;
  const auto add = [&](std::string change, const ClusterSpec& other) -> absl::Status {
    MILLRACE_ASSIGN_OR_RETURN(const std::optional<PlacementPlan> then, plan_on(other));
    gains.push_back({std::move(change), std::nullopt});
    if (then.has_value()) gains.back().predicted = then->predicted;
    return absl::OkStatus();
  };
  for (const LedgerTotal& total : plan.totals) {
    ClusterSpec more = cluster;
    for (HostSpec& host : more.hosts) {
      if (host.worker != total.worker) continue;
      if (total.memory == "host") SetHostBudget(host.budget + 1_GiB, host);
      for (DeviceSpec& device : host.devices) {
        if (device.id.value() != total.memory) continue;
        SetDeviceBudget(device.budget + 1_GiB, device);
        if (IsCpu(device)) SetHostBudget(std::max(host.budget, device.budget), host);
      }
    }
    MILLRACE_RETURN_IF_ERROR(
        add(absl::StrCat("+1 GiB of ", total.worker.value(), "/", total.memory), more));
  }
  ClusterSpec now = cluster;
  for (const Bandwidths& bandwidths : BandwidthsOf(now, CountHomes(plan))) {
    if (!bandwidths.used) continue;
    ClusterSpec more = cluster;
    bandwidths.raise(more);
    MILLRACE_RETURN_IF_ERROR(add(absl::StrCat("+10% ", bandwidths.name), more));
  }
  return gains;
}

std::string RenderGains(const std::vector<Gain>& gains, const Prediction& now) {
  constexpr double kGrain = 0.0005;
  std::string out = "\nwhat more would buy, each planned anew\n";
  bool loss = false;
  for (const Gain& gain : gains) {
    if (!gain.predicted.has_value()) continue;
    const Prediction& then = *gain.predicted;
    const double share = absl::FDivDuration(now.objective_time, then.objective_time) - 1;
    absl::StrAppendFormat(&out, "  %-28s %8.2f tokens/s (%+.1f%%), first token after %s\n",
                          gain.change, then.decode_tokens_per_second, 100 * share,
                          RenderMilliseconds(then.ttft));
    loss |= share < -kGrain;
  }
  if (loss) {
    absl::StrAppend(&out,
                    "  below zero: another cut or pass size was chosen, which the simulator finds "
                    "slower\n");
  }
  return out;
}

}  // namespace millrace
