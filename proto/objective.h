// What a plan is to be fast at.
#ifndef MILLRACE_PROTO_OBJECTIVE_H_
#define MILLRACE_PROTO_OBJECTIVE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace millrace {

// One round of requests: `batch` sequences, each with a prompt of `prompt_tokens` read one after the
// other, then `decode_tokens` tokens of each, made together. A plan has the least time of that.
struct Objective {
  int batch = 1;
  int decode_tokens = 1;
  int prompt_tokens = 0;

  bool operator==(const Objective&) const = default;
};

// "decode", "decode:8" (sequences together), "prefill:4096", "mix:512+128" (prompt, then tokens made),
// "mix:512+128@8". InvalidArgument says what is allowed.
absl::StatusOr<Objective> ParseObjective(absl::string_view text);
// The same text again.
std::string ObjectiveText(const Objective& objective);
// "8 sequences decoding together": what a reader is told.
std::string ObjectiveWords(const Objective& objective);

}  // namespace millrace

#endif  // MILLRACE_PROTO_OBJECTIVE_H_
