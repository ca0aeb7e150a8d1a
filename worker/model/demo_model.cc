#include "worker/model/demo_model.h"

extern "C" {
// Defined by demo_model_data.S around the file's bytes.
extern const std::byte millrace_demo_model_begin[];
extern const std::byte millrace_demo_model_end[];
}

namespace millrace {

absl::Span<const std::byte> DemoModelBytes() {
  return {millrace_demo_model_begin,
          static_cast<size_t>(millrace_demo_model_end - millrace_demo_model_begin)};
}

}  // namespace millrace
