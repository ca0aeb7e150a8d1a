// What the commands say about a model of which only metadata is here.
#ifndef MILLRACE_TOOLS_MODEL_WORDS_H_
#define MILLRACE_TOOLS_MODEL_WORDS_H_

#include <string>

#include "absl/strings/str_cat.h"
#include "proto/bytes.h"
#include "worker/model/model.h"

namespace millrace {

// "only metadata is here, 4.21 GiB of the weights are missing: it cannot be run"
inline std::string OnlyMetadata(const Model& model) {
  return absl::StrCat("only metadata is here, ", FormatBytes(model.missing()),
                      " of the weights are missing: it cannot be run");
}

}  // namespace millrace

#endif  // MILLRACE_TOOLS_MODEL_WORDS_H_
