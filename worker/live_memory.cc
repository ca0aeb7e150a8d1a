#include "worker/live_memory.h"

#include <algorithm>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "worker/probe_cuda.h"
#include "worker/process_memory.h"

namespace millrace {
namespace {

constexpr int64_t kHostSlack = 64;  // one part in so many

// The hardware behind "gpu1" and "gpu1#1"; nothing for memory that is the host's.
std::optional<int> GpuIndex(absl::string_view memory) {
  int index = 0;
  if (!absl::ConsumePrefix(&memory, "gpu")) return std::nullopt;
  if (!absl::SimpleAtoi(memory.substr(0, memory.find('#')), &index)) return std::nullopt;
  return index;
}

struct Wanted {
  Bytes host;
  std::map<int, Bytes> gpus;
};

Wanted WantedBy(const PlacementPlan& plan, const WorkerId& worker) {
  Wanted wanted;
  for (const LedgerEntry& entry : plan.ledger) {
    if (entry.worker != worker || entry.purpose == Purpose::kOverhead) continue;
    const std::optional<int> gpu = GpuIndex(entry.memory);
    (gpu ? wanted.gpus[*gpu] : wanted.host) += entry.bytes;
  }
  return wanted;
}

Bytes Beside(const DeviceSpec& device) {
  return std::max(Bytes(0), device.budget - device.overhead);
}

// What the process itself has of the host's memory, where a device carries it.
Bytes OwnOf(const HostSpec& host) {
  Bytes own;
  for (const DeviceSpec& d : host.devices) {
    if (d.kind == DeviceKind::kCpu) own += d.overhead;
  }
  return own;
}

}  // namespace

MemorySource ThisMachine() {
  MemorySource source;
  source.host_available = []() -> std::optional<Bytes> {
    const HostMemory memory = MeasureHostMemory();
    if (memory.total == Bytes(0)) return std::nullopt;
    return memory.available;
  };
  source.gpu_free = [](int index) { return FreeGpuMemory(index); };
  return source;
}

std::vector<Shortage> FindShortages(const PlacementPlan& plan, const WorkerId& worker,
                                    const MemorySource& source) {
  const Wanted wanted = WantedBy(plan, worker);
  std::vector<Shortage> shortages;
  for (const auto& [index, takes] : wanted.gpus) {
    const absl::StatusOr<Bytes> free = source.gpu_free(index);
    if (!free.ok() || takes <= *free) continue;
    shortages.push_back({absl::StrCat("gpu", index), takes, *free});
  }
  const std::optional<Bytes> available = source.host_available();
  if (!available.has_value()) return shortages;
  const Bytes slack(wanted.host.count() / kHostSlack);
  if (wanted.host > *available + slack) {
    shortages.push_back({"host memory", wanted.host, *available});
  }
  return shortages;
}

absl::Status ShortageError(const std::vector<Shortage>& shortages, absl::string_view remedy) {
  if (shortages.empty()) return absl::OkStatus();
  const auto describe = [](std::string* out, const Shortage& s) {
    absl::StrAppend(out, s.memory, ": the plan takes ", FormatBytes(s.takes), ", ",
                    FormatBytes(s.free), " are free now (", FormatBytes(s.takes - s.free),
                    " less than it takes)");
  };
  return absl::FailedPreconditionError(
      absl::StrCat(absl::StrJoin(shortages, "; ", describe),
                   ": something else has taken it, or the budget was larger than what is free; "
                   "free it, ",
                   remedy));
}

HostSpec BudgetsNow(HostSpec host, const MemorySource& source) {
  std::map<int, Bytes> wanted;  // by hardware
  for (const DeviceSpec& d : host.devices) {
    if (const auto gpu = GpuIndex(d.id.value())) wanted[*gpu] += Beside(d);
  }
  for (const auto& [index, sum] : wanted) {
    const absl::StatusOr<Bytes> free = source.gpu_free(index);
    if (!free.ok() || sum <= *free) continue;
    const double share = static_cast<double>(free->count()) / static_cast<double>(sum.count());
    for (DeviceSpec& d : host.devices) {
      if (GpuIndex(d.id.value()) != index) continue;
      const auto left = static_cast<int64_t>(static_cast<double>(Beside(d).count()) * share);
      d.budget = std::min(d.budget, d.overhead + Bytes(left));
    }
  }
  const std::optional<Bytes> available = source.host_available();
  if (!available.has_value()) return host;
  const Bytes most = *available + OwnOf(host);
  host.budget = std::min(host.budget, most);
  Bytes cpus;
  for (const DeviceSpec& d : host.devices) {
    if (d.kind == DeviceKind::kCpu) cpus += d.budget;
  }
  if (cpus <= most) return host;
  const double share = static_cast<double>(most.count()) / static_cast<double>(cpus.count());
  for (DeviceSpec& d : host.devices) {
    if (d.kind != DeviceKind::kCpu) continue;
    d.budget = Bytes(static_cast<int64_t>(static_cast<double>(d.budget.count()) * share));
  }
  return host;
}

}  // namespace millrace
