// Pins: what the user has fixed, resolved against a problem's blocks and devices.
#ifndef MILLRACE_PLANNER_PINS_H_
#define MILLRACE_PLANNER_PINS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "planner/placement_problem.h"

namespace millrace {

// A device by its place in the problem.
struct DeviceRef {
  int host = 0;
  int device = 0;
};

enum class PinnedHome : uint8_t { kAny, kDevice, kHost };

struct ResolvedPins {
  std::vector<std::vector<bool>> allowed;  // [block][index into AllDevices]
  std::vector<PinnedHome> home;            // [block]
  bool any_device = false;                 // some pin names a device or worker
};

std::vector<DeviceRef> AllDevices(const ClusterSpec& cluster);

// * matches any run of characters, ? one.
bool GlobMatches(absl::string_view pattern, absl::string_view text);

// "blk.*.ffn=host" to a Pin. InvalidArgument shows the form.
absl::StatusOr<Pin> ParsePin(absl::string_view text);

// InvalidArgument: a pin that matches no block, or names no worker or device; pin named.
absl::StatusOr<ResolvedPins> ResolvePins(const PlacementProblem& problem);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PINS_H_
