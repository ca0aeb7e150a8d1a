// Synthetic models: the shape, metadata and type mixture of a real one, random weights.
#ifndef MILLRACE_TOOLS_SYNTH_H_
#define MILLRACE_TOOLS_SYNTH_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/bytes.h"

namespace millrace {

struct SynthOptions {
  std::string shape;  // one of SynthShapeNames()
  std::string quant;  // one of SynthQuantNames(), any case
  std::string path;   // written whole or not at all; an existing file is replaced
  uint64_t seed = 0;  // the same seed gives the same bytes, whatever the number of threads
  int threads = 0;    // 0: one per usable core
  std::function<void(Bytes done, Bytes total)> on_progress;  // called by one thread at a time
};

std::vector<std::string> SynthShapeNames();
std::vector<std::string> SynthQuantNames();

// InvalidArgument: unknown shape or quant, the known ones listed. ResourceExhausted: the disk is
// full (nothing is left behind). PermissionDenied, NotFound, DataLoss name the path.
absl::Status WriteSyntheticModel(const SynthOptions& options);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_SYNTH_H_
