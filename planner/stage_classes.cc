#include "planner/stage_classes.h"

#include <algorithm>
#include <bit>
#include <map>

namespace millrace {

StageClasses::StageClasses(const ClusterSpec& cluster, const StageTable& table, int first, int end)
    : table_(table), first_(first), blocks_(end - first) {
  const std::vector<DeviceRef> refs = AllDevices(cluster);
  Collect(refs, cluster);
  NumberFields();
  OrderWorkers(refs);
  AddHops();
}

bool StageClasses::SameOptions(int a, int b) const {
  for (int i = 0; i < blocks_; ++i) {
    for (int j = i + 1; j <= blocks_; ++j) {
      const StageOption &x = Option(a, i, j), &y = Option(b, i, j);
      if (&x == &y && i == 0 && j == 1) return true;  // the table shares those of equal devices
      if (x.fits != y.fits || (x.fits && x.seconds != y.seconds)) return false;
    }
  }
  return true;
}

void StageClasses::Collect(const std::vector<DeviceRef>& refs, const ClusterSpec& cluster) {
  const auto alone = [&](const DeviceRef& r) { return cluster.hosts[r.host].devices.size() == 1; };
  for (size_t d = 0; d < refs.size(); ++d) {
    const auto same = std::find_if(classes_.begin(), classes_.end(), [&](const StageClass& c) {
      const DeviceRef& other = refs[c.devices.front()];
      const bool exchangeable = other.host == refs[d].host || (alone(other) && alone(refs[d]));
      return exchangeable && SameOptions(c.devices.front(), static_cast<int>(d));
    });
    if (same != classes_.end()) {
      same->devices.push_back(static_cast<int>(d));
      continue;
    }
    StageClass added;
    added.devices = {static_cast<int>(d)};
    added.arcs.resize(static_cast<size_t>(blocks_));
    for (int i = 0; i < blocks_; ++i) {
      for (int j = i + 1; j <= blocks_; ++j) {
        const StageOption& option = Option(static_cast<int>(d), i, j);
        if (option.fits) added.arcs[i].push_back({j, option.seconds});
        if (option.hopeless) break;
      }
    }
    classes_.push_back(std::move(added));
  }
}

void StageClasses::NumberFields() {
  for (StageClass& c : classes_) {
    c.shift = bits_;
    bits_ += static_cast<int>(std::bit_width(c.devices.size()));
  }
}

// Of workers that are equal in all, the first is used first.
void StageClasses::OrderWorkers(const std::vector<DeviceRef>& refs) {
  if (bits_ > kMostBits) return;
  std::map<int, std::vector<int>> of_worker;  // classes with several devices on the worker
  for (int c = 0; c < size(); ++c) {
    of_worker[refs[classes_[c].devices.front()].host].push_back(c);
  }
  const auto equal = [&](const std::vector<int>& a, const std::vector<int>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](int x, int y) {
      return devices(x) == devices(y) &&
             SameOptions(classes_[x].devices.front(), classes_[y].devices.front());
    });
  };
  std::vector<const std::vector<int>*> last_of_kind;
  for (const auto& [worker, mine] : of_worker) {
    const auto kind = std::find_if(last_of_kind.begin(), last_of_kind.end(),
                                   [&](const auto* other) { return equal(*other, mine); });
    if (kind == last_of_kind.end()) {
      last_of_kind.push_back(&mine);
      continue;
    }
    UsedDevices before = 0;
    for (int c : **kind) {
      for (size_t b = 0; b < static_cast<size_t>(std::bit_width(classes_[c].devices.size())); ++b) {
        before |= OneOf(classes_[c]) << static_cast<int>(b);
      }
    }
    for (int c : mine) classes_[c].after = before;
    *kind = &mine;
  }
}

void StageClasses::AddHops() {
  const size_t n = classes_.size();
  hops_.resize(n * n);
  for (size_t a = 0; a < n; ++a) {
    for (size_t b = 0; b < n; ++b) {
      const std::vector<int>& to = classes_[b].devices;
      const int other = a == b ? to.back() : to.front();
      hops_[a * n + b] = table_.HopSeconds(classes_[a].devices.front(), other);
    }
  }
  std::vector<std::vector<int>> groups;
  for (int a = 0; a < size(); ++a) {
    const auto mine = std::find_if(groups.begin(), groups.end(), [&](const auto& group) {
      return std::all_of(group.begin(), group.end(), [&](int b) { return SameHops(a, b); });
    });
    classes_[a].hop_group = static_cast<int>(mine - groups.begin());
    if (mine == groups.end()) {
      groups.push_back({a});
    } else {
      mine->push_back(a);
    }
  }
}

// To every device that is left where both are used.
bool StageClasses::SameHops(int a, int b) const {
  for (int c = 0; c < size(); ++c) {
    if ((c == a || c == b) && devices(c) == 1) continue;
    if (Hop(a, c) != Hop(b, c)) return false;
  }
  return true;
}

double StageClasses::LongestHop() const {
  return hops_.empty() ? 0 : *std::max_element(hops_.begin(), hops_.end());
}

double StageClasses::ShortestHop() const {
  return hops_.empty() ? 0 : *std::min_element(hops_.begin(), hops_.end());
}

int StageClasses::Used(UsedDevices used, int c) const {
  const int bits = std::bit_width(classes_[c].devices.size());
  return static_cast<int>(absl::Uint128Low64(used >> classes_[c].shift) &
                          ((uint64_t{1} << bits) - 1));
}

bool StageClasses::Free(UsedDevices used, int c) const {
  const StageClass& mine = classes_[c];
  return Used(used, c) < devices(c) && (mine.after == 0 || (used & mine.after) != 0);
}

}  // namespace millrace
