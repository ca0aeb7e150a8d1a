// A text as the windows of tokens that eval and calibrate score.
#ifndef MILLRACE_TOOLS_TEXT_WINDOWS_H_
#define MILLRACE_TOOLS_TEXT_WINDOWS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/ids.h"

namespace millrace {

struct TextWindows {
  int64_t text_tokens = 0;  // of all of the text
  std::vector<std::vector<TokenId>>
      windows;  // of equal length, the first token BOS where there is one
};

// Consecutive full windows of `length` tokens, each's first token replaced by BOS where the
// vocabulary adds one. InvalidArgument: a window below 4 tokens, or a text shorter than one, names
// the flag.
absl::StatusOr<TextWindows> ReadTextWindows(const std::string& model, const std::string& text_path,
                                            int length);

// The first of a window's tokens whose log-probability is scored: every prediction has at least
// half a window of tokens before it.
inline int FirstScored(int length) { return length / 2 + 1; }

}  // namespace millrace

#endif  // MILLRACE_TOOLS_TEXT_WINDOWS_H_
