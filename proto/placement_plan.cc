#include "proto/placement_plan.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "proto/model_spec.h"

namespace millrace {
namespace {

// FNV-1a, 64 bit (http://www.isthe.com/chongo/tech/comp/fnv/): stable across builds and machines.
class Fnv1a {
 public:
  void Add(absl::string_view bytes) {
    for (unsigned char c : bytes) state_ = (state_ ^ c) * 0x100000001b3ull;
    state_ = (state_ ^ 0xff) * 0x100000001b3ull;  // separates fields
  }
  void Add(int64_t v) {
    char raw[8];
    std::memcpy(raw, &v, 8);
    Add(absl::string_view(raw, 8));
  }
  uint64_t value() const { return state_; }

 private:
  uint64_t state_ = 0xcbf29ce484222325ull;
};

}  // namespace

absl::string_view PurposeName(Purpose purpose) {
  switch (purpose) {
    case Purpose::kWeights:
      return "weights";
    case Purpose::kKvCache:
      return "kv cache";
    case Purpose::kActivations:
      return "activations";
    case Purpose::kOverhead:
      return "overhead";
    case Purpose::kStreamRing:
      return "stream ring";
  }
  return "?";
}

int CpuWork::Units(int tokens, int d_ff) const {
  if (tokens <= host_route_max_tokens) return d_ff;
  for (const CpuShare& share : shares) {
    if (tokens <= share.max_tokens) return share.units;
  }
  return 0;
}

int CpuWork::LeastUnits(int max_pass_tokens, int d_ff) const {
  int least = Units(max_pass_tokens, d_ff);
  for (const CpuShare& share : shares) {
    const int tokens = std::min(share.max_tokens, max_pass_tokens);
    least = std::min(least, Units(tokens, d_ff));
  }
  return least;
}

int CpuWork::LargestPass(int max_pass_tokens) const {
  int before = std::min(host_route_max_tokens, max_pass_tokens), largest = before;
  for (const CpuShare& share : shares) {
    const int tokens = std::min(share.max_tokens, max_pass_tokens);
    if (share.units > 0 && tokens > before) largest = tokens;
    before = tokens;
  }
  return largest;
}

std::string FingerprintOf(const ModelSpec& model) {
  Fnv1a hash;
  hash.Add(model.architecture);
  hash.Add(model.vocab);
  hash.Add(model.d_model);
  for (const LayerSpec& layer : model.layers) {
    hash.Add(layer.heads);
    hash.Add(layer.kv_heads);
    hash.Add(layer.head_dim);
    hash.Add(layer.d_ff);
  }
  for (const TensorSpec& t : model.tensors) {
    hash.Add(t.name);
    hash.Add(static_cast<int64_t>(t.file_dtype.value_or(t.dtype)));
    for (int64_t d : t.shape) hash.Add(d);
    hash.Add((t.file_dtype ? t.rows() * RowBytes(*t.file_dtype, t.cols()) : t.size).count());
  }
  return absl::StrFormat("%016x", hash.value());
}

}  // namespace millrace
