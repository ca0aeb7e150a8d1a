// What a model is: dimensions, tensors with their exact bytes, and the blocks the planner places.
// Plain values, filled by worker/model from a file's metadata and read by everyone.
#ifndef MILLRACE_PROTO_MODEL_SPEC_H_
#define MILLRACE_PROTO_MODEL_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "proto/bytes.h"
#include "proto/dtype.h"

namespace millrace {

// What a tensor is for. Per-layer roles have layer >= 0.
enum class TensorRole : uint8_t {
  kTokenEmbedding,  // [vocab, d_model]
  kOutputNorm,      // [d_model]
  kOutput,          // [vocab, d_model]; absent when the output is tied to the embedding
  kRopeFactors,     // [head_dim / 2], divides the rotary frequencies (Llama 3 scaling)
  kAttnNorm,        // [d_model]
  kAttnQ,
  kAttnK,
  kAttnV,  // [heads * head_dim, d_model], k and v by kv_heads
  kAttnQBias,
  kAttnKBias,
  kAttnVBias,  // [heads * head_dim] (qwen2)
  kAttnQNorm,
  kAttnKNorm,       // [head_dim] (qwen3)
  kAttnOutput,      // [d_model, heads * head_dim]
  kAttnOutputBias,  // [d_model]
  kFfnNorm,         // [d_model]
  kFfnGate,
  kFfnUp,    // [d_ff, d_model]
  kFfnDown,  // [d_model, d_ff]
};

struct TensorSpec {
  std::string name;  // as in the file
  TensorRole role{};
  int layer = -1;  // -1: not part of a layer
  DType dtype{};
  std::vector<int64_t> shape;  // row-major, outermost first: [rows, cols] or [cols]
  int file = 0;                // index into ModelSpec::files
  Bytes offset;                // from the start of that file
  Bytes size;                  // exact
  // Where `dtype` is what the tensor is converted to when it is loaded: its type in the file. Size is of
  // `dtype`; file and offset are meaningless then (proto/stored_types.h).
  std::optional<DType> file_dtype = {};

  int64_t rows() const { return shape.size() == 2 ? shape[0] : 1; }
  int64_t cols() const { return shape.empty() ? 0 : shape.back(); }
};

// How the two halves of a rotated pair lie in a head.
enum class RopeStyle : uint8_t {
  kInterleaved,  // pairs (2i, 2i+1): GGUF files of the llama architecture
  kHalfSplit,    // pairs (i, i + dims/2): qwen, and every Hugging Face checkpoint
};

struct RopeSpec {
  RopeStyle style = RopeStyle::kInterleaved;
  int dims = 0;                // rotated dimensions per head, <= head_dim
  float base = 10000.0f;       // theta
  float linear_factor = 1.0f;  // positions are divided by this ("linear" scaling)
  // Divides frequency i; empty = all ones. From rope_freqs.weight or computed from config.json.
  std::vector<float> frequency_factors;  // [dims / 2]
};

struct LayerSpec {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int d_ff = 0;
};

struct ModelFileSpec {
  std::string name;  // file name without folder
  Bytes size;
};

struct ModelSpec {
  std::string architecture;  // "llama", "qwen2", "qwen3"
  std::string name;          // for people
  int64_t vocab = 0;
  int d_model = 0;
  int context_length = 0;  // trained context, tokens
  float norm_epsilon = 1e-5f;
  bool tied_output = false;  // the head uses the token embedding
  RopeSpec rope;
  std::vector<LayerSpec> layers;
  std::vector<TensorSpec> tensors;
  std::vector<ModelFileSpec> files;

  // Index into `tensors`, or -1. layer = -1 for the global roles.
  int FindTensor(TensorRole role, int layer = -1) const;
  Bytes weight_bytes() const;  // sum of all tensors
  int64_t parameters() const;  // number of weights
};

// The planner's unit.
enum class BlockKind : uint8_t { kEmbedding, kAttention, kFeedForward, kHead };

struct Block {
  BlockKind kind{};
  int layer = -1;            // -1 for embedding and head
  std::vector<int> tensors;  // indices into ModelSpec::tensors
  Bytes weights;             // sum of their sizes
};

// embedding, attn 0, ffn 0, attn 1, ..., head. Index 0 is the embedding; 1 + 2i and 2 + 2i are
// layer i's halves; the last is the head (output norm + output matrix). With a tied output the head
// lists the embedding tensor too: on a device that already holds block 0 those bytes are shared.
std::vector<Block> BlocksOf(const ModelSpec& model);

// "embed", "blk.7.attn", "blk.7.ffn", "head": the names that --pin patterns match.
std::string BlockName(const Block& block);

// Bytes that one token of one sequence takes in the K and V caches of one layer.
Bytes KvBytesPerToken(const LayerSpec& layer, DType kv_type);

// Bytes of one layer's K and V caches for `slots` sequences of `context` tokens, each of the two
// rounded up to 256 bytes so that the next one begins aligned.
Bytes KvCacheBytes(const LayerSpec& layer, DType kv_type, int context, int slots);

}  // namespace millrace

#endif  // MILLRACE_PROTO_MODEL_SPEC_H_
