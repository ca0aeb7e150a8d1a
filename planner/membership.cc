#include "planner/membership.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"

namespace millrace {

Membership::Membership(absl::Duration lease, OnLost on_lost, std::function<void()> on_change)
    : lease_(lease), on_lost_(std::move(on_lost)), on_change_(std::move(on_change)) {}

absl::StatusOr<uint64_t> Membership::Join(const HostSpec& host, Epoch loaded, absl::Time now) {
  MILLRACE_ASSIGN_OR_RETURN(const uint64_t session, AddMember(host, loaded, now));
  Changed();
  return session;
}

absl::StatusOr<uint64_t> Membership::AddMember(const HostSpec& host, Epoch loaded, absl::Time now) {
  if (host.worker.empty()) {
    return absl::InvalidArgumentError("RegisterWorker.host.worker: a worker needs a name");
  }
  if (host.address.empty()) {
    return absl::InvalidArgumentError("RegisterWorker.host.address: a worker needs an address");
  }
  absl::MutexLock lock(&mu_);
  for (auto it = members_.begin(); it != members_.end();) {  // rule 3
    const bool forget = !it->second.live && now - it->second.last_heartbeat > kRemember;
    it = forget ? members_.erase(it) : std::next(it);
  }
  const auto it = members_.find(host.worker);
  if (it != members_.end() && it->second.live) {
    return absl::AlreadyExistsError(absl::StrCat("a worker named '", host.worker.value(),
                                                 "' is registered from ", it->second.host.address,
                                                 "; give this one another --name"));
  }
  if (it == members_.end() && members_.size() >= kMaxMembers) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the cluster has ", kMaxMembers, " workers already"));
  }
  Member& member = members_[host.worker];
  member = Member{};
  member.host = host;
  member.live = true;
  member.last_heartbeat = now;
  member.session = next_session_++;
  member.loaded = loaded;
  return member.session;
}

bool Membership::Heartbeat(const WorkerId& worker, uint64_t session, const v1::WorkerStatus& status,
                           absl::Time now) {
  absl::MutexLock lock(&mu_);
  const auto it = members_.find(worker);
  if (it == members_.end() || !it->second.live || it->second.session != session) return false;
  it->second.last_heartbeat = now;
  it->second.status = status;
  return true;
}

void Membership::End(const WorkerId& worker, uint64_t session, std::optional<std::string> reason) {
  {
    absl::MutexLock lock(&mu_);
    const auto it = members_.find(worker);
    if (it == members_.end() || !it->second.live || it->second.session != session) return;
    if (reason.has_value()) {
      it->second.live = false;
      it->second.lost_because = *reason;
    } else {
      members_.erase(it);
    }
  }
  on_lost_(worker, reason.value_or("it left the cluster"));
  Changed();
}

void Membership::SetHost(const HostSpec& host) {
  {
    absl::MutexLock lock(&mu_);
    const auto it = members_.find(host.worker);
    if (it == members_.end() || !it->second.live) return;
    const std::string address = it->second.host.address;
    it->second.host = host;
    it->second.host.address = address;
  }
  Changed();
}

void Membership::ExpireLeases(absl::Time now) {
  std::vector<std::pair<WorkerId, uint64_t>> expired;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [name, member] : members_) {
      if (member.live && now - member.last_heartbeat > lease_) {
        expired.emplace_back(name, member.session);
      }
    }
  }
  for (const auto& [name, session] : expired) {
    End(name, session, absl::StrCat("no heartbeat for ", absl::FormatDuration(lease_)));
  }
}

void Membership::SetLoaded(const WorkerId& worker, Epoch epoch) {
  absl::MutexLock lock(&mu_);
  const auto it = members_.find(worker);
  if (it != members_.end()) it->second.loaded = epoch;
}

std::optional<Member> Membership::Find(const WorkerId& worker) const {
  absl::MutexLock lock(&mu_);
  const auto it = members_.find(worker);
  if (it == members_.end()) return std::nullopt;
  return it->second;
}

bool Membership::IsLive(const WorkerId& worker, uint64_t session) const {
  absl::MutexLock lock(&mu_);
  const auto it = members_.find(worker);
  return it != members_.end() && it->second.live && it->second.session == session;
}

std::vector<Member> Membership::All() const {
  absl::MutexLock lock(&mu_);
  std::vector<Member> all;
  for (const auto& entry : members_) all.push_back(entry.second);
  return all;
}

std::vector<Member> Membership::Live() const {
  std::vector<Member> live;
  for (Member& member : All()) {
    if (member.live) live.push_back(std::move(member));
  }
  return live;
}

}  // namespace millrace
