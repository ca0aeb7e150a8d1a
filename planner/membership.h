// Membership: which workers are in the cluster. Plain bookkeeping under one lock; no gRPC, no
// clock.
#ifndef MILLRACE_PLANNER_MEMBERSHIP_H_
#define MILLRACE_PLANNER_MEMBERSHIP_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "millrace/v1/worker.pb.h"
#include "proto/cluster_spec.h"
#include "proto/ids.h"

namespace millrace {

struct Member {
  HostSpec host;
  bool live = false;
  std::string lost_because;  // when not live
  absl::Time last_heartbeat;
  uint64_t session = 0;  // which registration this is: a restarted worker gets another
  Epoch loaded;          // what it holds, as far as the planner knows
  v1::WorkerStatus status;
};

// Rules:
// 1. A name has at most one live session. A second one is refused while the first lives.
// 2. A member is lost when its session breaks or its lease runs out, and live again when it
//    registers anew; a worker that leaves in good order is forgotten.
// 3. Lost members are remembered for kRemember, to say who is missing.
// Thread-safe. `on_lost` is called without the lock held, by the thread that noticed.
class Membership {
 public:
  static constexpr absl::Duration kRemember = absl::Hours(1);
  static constexpr int kMaxMembers = 1024;
  using OnLost = std::function<void(const WorkerId&, const std::string& reason)>;

  // `on_change`, likewise without the lock: a member came or went, or its budgets changed; may be
  // empty.
  Membership(absl::Duration lease, OnLost on_lost, std::function<void()> on_change = nullptr);

  // The session's number. InvalidArgument names the field; AlreadyExists: rule 1.
  absl::StatusOr<uint64_t> Join(const HostSpec& host, Epoch loaded, absl::Time now);

  // False: that session is not the live one any more (its lease ran out).
  bool Heartbeat(const WorkerId& worker, uint64_t session, const v1::WorkerStatus& status,
                 absl::Time now);

  // The session ended: `reason` for a loss, nothing for a good leave. A no-op for an old session.
  void End(const WorkerId& worker, uint64_t session, std::optional<std::string> reason);

  // Loses every live member whose last heartbeat is older than the lease.
  void ExpireLeases(absl::Time now);

  // The worker read its free memory again. A no-op for one that is not live.
  void SetHost(const HostSpec& host);

  // After a Load or Unload that the worker confirmed.
  void SetLoaded(const WorkerId& worker, Epoch epoch);

  std::optional<Member> Find(const WorkerId& worker) const;
  bool IsLive(const WorkerId& worker, uint64_t session) const;
  std::vector<Member> All() const;   // by name
  std::vector<Member> Live() const;  // by name

 private:
  absl::StatusOr<uint64_t> AddMember(const HostSpec& host, Epoch loaded, absl::Time now);
  void Changed() const {
    if (on_change_) on_change_();
  }

  const absl::Duration lease_;
  const OnLost on_lost_;
  const std::function<void()> on_change_;
  mutable absl::Mutex mu_;
  std::map<WorkerId, Member> members_ ABSL_GUARDED_BY(mu_);
  uint64_t next_session_ ABSL_GUARDED_BY(mu_) = 1;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_MEMBERSHIP_H_
