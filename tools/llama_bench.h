// Runs a llama-bench that the user has, for figures side by side, and reads its JSON.
#ifndef MILLRACE_TOOLS_LLAMA_BENCH_H_
#define MILLRACE_TOOLS_LLAMA_BENCH_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace millrace {

struct PeerResult {
  int prompt = 0;     // tokens read; 0 for a generation test
  int generated = 0;  // tokens made; 0 for a prompt test
  int depth = 0;      // tokens in the context before the test
  double tokens_per_second = 0;
};

// The array that `llama-bench -o json` prints. DataLoss names the field that is missing; a
// llama-bench that knows no depth leaves n_depth out.
absl::StatusOr<std::vector<PeerResult>> ParseLlamaBench(absl::string_view json);

struct PeerRequest {
  std::string binary, model;
  std::vector<int> prompts;
  int generate = 0;
  int threads = 1;
  int repeat = 3;
  int depth = 0;     // above 0: generation is measured at this depth too
  bool gpu = false;  // all layers on GPUs with flash attention, or all on the CPU
};
std::vector<std::string> LlamaBenchCommand(const PeerRequest& request);

// NotFound, Unavailable: the program could not be run or failed; its stderr goes to ours.
absl::StatusOr<std::vector<PeerResult>> RunLlamaBench(const PeerRequest& request);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_LLAMA_BENCH_H_
