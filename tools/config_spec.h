// A model of which there is only a Hugging Face config.json.
#ifndef MILLRACE_TOOLS_CONFIG_SPEC_H_
#define MILLRACE_TOOLS_CONFIG_SPEC_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/model_spec.h"

namespace millrace {

// True for the name of a .json file, and for a folder.
bool MayHoldConfig(const std::string& path);

// The spec of the GGUF file that the field's converter and quantiser would make of the checkpoint:
// `path` is its config.json, or the folder with it; nothing else is read. Offsets and the file's
// size are of the tensors alone. NotFound: no such file. DataLoss and Unimplemented name file and
// field. InvalidArgument: no such quant; lists those there are.
absl::StatusOr<ModelSpec> SpecFromConfig(const std::string& path, absl::string_view quant);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_CONFIG_SPEC_H_
