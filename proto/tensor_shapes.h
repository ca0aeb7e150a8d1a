// The shapes that a layer's dimensions give its tensors.
#ifndef MILLRACE_PROTO_TENSOR_SHAPES_H_
#define MILLRACE_PROTO_TENSOR_SHAPES_H_

#include <cstdint>
#include <vector>

#include "proto/model_spec.h"

namespace millrace {

// Row-major, as TensorSpec::shape. `role` is one of a layer's.
std::vector<int64_t> LayerTensorShape(const LayerSpec& layer, int64_t d_model, TensorRole role);

}  // namespace millrace

#endif  // MILLRACE_PROTO_TENSOR_SHAPES_H_
