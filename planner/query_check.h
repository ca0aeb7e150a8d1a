// Checks of models and machines that a client describes: what the planner relies on and cannot take
// from a stranger. Values that came through proto/convert.h.
#ifndef MILLRACE_PLANNER_QUERY_CHECK_H_
#define MILLRACE_PLANNER_QUERY_CHECK_H_

#include "absl/status/status.h"
#include "proto/cluster_spec.h"
#include "proto/model_spec.h"

namespace millrace {

inline constexpr int kMostLayers = 1024;
inline constexpr int kMostDevices = 64;                // in all
inline constexpr int64_t kMostCachedTokens = 1 << 28;  // context x slots

// Every layer has its tensors once, with the shapes that the dimensions give them and the bytes
// that shape and type give; products and sums stay far from overflow. InvalidArgument names the
// field.
absl::Status CheckDescribedModel(const ModelSpec& model);

// At least one host, every name once, at most kMostDevices devices, every speed at least one a
// second. InvalidArgument names the field.
absl::Status CheckDescribedCluster(const ClusterSpec& cluster);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_QUERY_CHECK_H_
