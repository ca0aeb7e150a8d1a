// libFuzzer entry point.
#include "tests/fuzz/model_files_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  millrace::FuzzGguf(data, size);
  return 0;
}
