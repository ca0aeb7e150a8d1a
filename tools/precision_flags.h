// The flags that say in which precision weights are held.
#ifndef MILLRACE_TOOLS_PRECISION_FLAGS_H_
#define MILLRACE_TOOLS_PRECISION_FLAGS_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/precision_choice.h"

namespace millrace {

struct PrecisionFlags {
  std::string mode = "keep";
  std::vector<std::string> floors;  // "blk.*.attn_v=q8_0"
  std::string weight_memory;        // "8GiB", "60%"; empty: what the devices hold
  std::string sensitivity;          // a file; empty: the one beside the model, or the default table
};

// `flags` outlives `app`'s parse.
void AddPrecisionFlags(CLI::App* app, PrecisionFlags& flags);

struct PrecisionWishes {
  bool automatic = false;  // else nothing is converted
  std::vector<PrecisionFloor> floors;
  std::string weight_memory, sensitivity;

  // What weights may take of a model whose file has `file` bytes of them; nothing: as much as fits.
  std::optional<Bytes> Limit(Bytes file) const;
};

// InvalidArgument names the flag, the value and what would do; also flags that mean nothing with
// --precision keep.
absl::StatusOr<PrecisionWishes> ParsePrecision(const PrecisionFlags& flags);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_PRECISION_FLAGS_H_
