// RawTensor: a tensor as a file lists it, before anyone knows what it is for.
#ifndef MILLRACE_WORKER_MODEL_RAW_TENSOR_H_
#define MILLRACE_WORKER_MODEL_RAW_TENSOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "proto/bytes.h"
#include "proto/dtype.h"

namespace millrace {

// Range, overflow and overlap are checked by the parser that made it.
struct RawTensor {
  std::string name;
  DType dtype{};
  std::vector<int64_t> shape;  // row-major, outermost first
  int file = 0;                // index among the model's files
  Bytes offset;                // from the start of that file
  Bytes size;                  // exact
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_RAW_TENSOR_H_
