// Models in F16 for the choice of precision.
#ifndef MILLRACE_TESTS_PLANNER_PRECISION_TESTING_H_
#define MILLRACE_TESTS_PLANNER_PRECISION_TESTING_H_

#include <string>

#include "proto/model_spec.h"

namespace millrace {

// `layers` layers of width `d`, GGUF's names.
inline ModelSpec F16Model(int layers, int d, int d_ff, int vocab, bool tied = false) {
  ModelSpec m;
  m.architecture = "llama";
  m.d_model = d;
  m.vocab = vocab;
  m.tied_output = tied;
  m.context_length = 4096;
  const auto add = [&m](const std::string& name, TensorRole role, int layer, int64_t rows,
                        int64_t cols) {
    TensorSpec t;
    t.name = (layer < 0 ? "" : "blk." + std::to_string(layer) + ".") + name + ".weight";
    t.role = role;
    t.layer = layer;
    t.dtype = rows == 1 ? DType::kF32 : DType::kF16;
    t.shape = rows == 1 ? std::vector<int64_t>{cols} : std::vector<int64_t>{rows, cols};
    t.size = rows * RowBytes(t.dtype, cols);
    m.tensors.push_back(t);
  };
  add("token_embd", TensorRole::kTokenEmbedding, -1, vocab, d);
  for (int i = 0; i < layers; ++i) {
    m.layers.push_back({d / 64, d / 128, 64, d_ff});
    add("attn_norm", TensorRole::kAttnNorm, i, 1, d);
    add("attn_q", TensorRole::kAttnQ, i, d, d);
    add("attn_k", TensorRole::kAttnK, i, d / 2, d);
    add("attn_v", TensorRole::kAttnV, i, d / 2, d);
    add("attn_output", TensorRole::kAttnOutput, i, d, d);
    add("ffn_norm", TensorRole::kFfnNorm, i, 1, d);
    add("ffn_gate", TensorRole::kFfnGate, i, d_ff, d);
    add("ffn_up", TensorRole::kFfnUp, i, d_ff, d);
    add("ffn_down", TensorRole::kFfnDown, i, d, d_ff);
  }
  add("output_norm", TensorRole::kOutputNorm, -1, 1, d);
  if (!tied) add("output", TensorRole::kOutput, -1, vocab, d);
  return m;
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_PLANNER_PRECISION_TESTING_H_
