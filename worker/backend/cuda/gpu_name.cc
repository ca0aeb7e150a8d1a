#include "worker/backend/cuda/gpu_name.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace millrace {

absl::StatusOr<int> HardwareIndex(const DeviceId& id) {
  absl::string_view name = id.value();
  name = name.substr(0, name.find('#'));
  int index = -1;
  if (!absl::ConsumePrefix(&name, "gpu") || !absl::SimpleAtoi(name, &index) || index < 0) {
    return absl::InvalidArgumentError(absl::StrCat("'", id.value(), "' is not a GPU: write gpu0"));
  }
  return index;
}

}  // namespace millrace
