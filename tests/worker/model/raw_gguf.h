// RawGguf: a GGUF file as parts that tests can make wrong one at a time.
#ifndef MILLRACE_TESTS_WORKER_MODEL_RAW_GGUF_H_
#define MILLRACE_TESTS_WORKER_MODEL_RAW_GGUF_H_

#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/model/gguf_value.h"

namespace millrace {

// A number's little-endian bytes.
template <typename T>
std::string Raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}
inline std::string RawString(const std::string& text) { return Raw<uint64_t>(text.size()) + text; }
inline std::string RawStrings(const std::vector<std::string>& texts) {
  std::string out = Raw<uint32_t>(8) + Raw<uint64_t>(texts.size());
  for (const std::string& t : texts) out += RawString(t);
  return out;
}
template <typename T>
std::string RawArray(GgufType type, const std::vector<T>& values) {
  std::string out = Raw<uint32_t>(static_cast<uint32_t>(type)) + Raw<uint64_t>(values.size());
  for (T v : values) out += Raw(v);
  return out;
}

struct RawKey {
  std::string name;
  uint32_t type = 0;
  std::string bytes;
};

struct RawEntry {
  std::string name;
  std::vector<uint64_t> dims;  // innermost first, as in the file
  uint32_t type = 0;
  uint64_t offset = 0;
};

struct RawGguf {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> stated_tensors, stated_keys;  // lies, when set
  std::vector<RawKey> keys;
  std::vector<RawEntry> tensors;
  uint64_t alignment = 32;
  uint64_t data_bytes = 0;

  void Set(const std::string& name, GgufType type, std::string bytes) {
    for (RawKey& k : keys) {
      if (k.name == name) {
        k = {name, static_cast<uint32_t>(type), std::move(bytes)};
        return;
      }
    }
    keys.push_back({name, static_cast<uint32_t>(type), std::move(bytes)});
  }
  void SetU32(const std::string& name, uint32_t v) { Set(name, GgufType::kUint32, Raw(v)); }
  void SetF32(const std::string& name, float v) { Set(name, GgufType::kFloat32, Raw(v)); }
  void SetText(const std::string& name, const std::string& v) {
    Set(name, GgufType::kString, RawString(v));
  }
  void Remove(const std::string& name) {
    std::erase_if(keys, [&](const RawKey& k) { return k.name == name; });
  }
  RawEntry& Tensor(const std::string& name) {
    for (RawEntry& t : tensors) {
      if (t.name == name) return t;
    }
    tensors.push_back({name, {}, 0, 0});
    return tensors.back();
  }
  // An F32 tensor after all others.
  void AddTensor(const std::string& name, std::vector<uint64_t> dims) {
    uint64_t bytes = 4;
    for (uint64_t d : dims) bytes *= d;
    tensors.push_back({name, std::move(dims), 0, data_bytes});
    data_bytes = (data_bytes + bytes + alignment - 1) / alignment * alignment;
  }

  std::string Bytes() const {
    std::string out = magic + Raw(version) + Raw<uint64_t>(stated_tensors.value_or(tensors.size()));
    out += Raw<uint64_t>(stated_keys.value_or(keys.size()));
    for (const RawKey& k : keys) out += RawString(k.name) + Raw(k.type) + k.bytes;
    for (const RawEntry& t : tensors) {
      out += RawString(t.name) + Raw<uint32_t>(static_cast<uint32_t>(t.dims.size()));
      for (uint64_t d : t.dims) out += Raw(d);
      out += Raw(t.type) + Raw(t.offset);
    }
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    // Small floats, so that every F32 is a number.
    for (uint64_t i = 0; i < data_bytes; i += 4) out += Raw(0.5f);
    return out;
  }
};

// A valid llama model: 2 layers, width 8, 2 heads of 4, 1 KV head, feed-forward 12, 10 tokens.
inline RawGguf TinyLlama() {
  RawGguf g;
  g.SetText("general.architecture", "llama");
  g.SetText("general.name", "tiny");
  g.SetU32("llama.block_count", 2);
  g.SetU32("llama.context_length", 64);
  g.SetU32("llama.embedding_length", 8);
  g.SetU32("llama.feed_forward_length", 12);
  g.SetU32("llama.attention.head_count", 2);
  g.SetU32("llama.attention.head_count_kv", 1);
  g.SetF32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  g.SetF32("llama.rope.freq_base", 10000.0f);
  g.SetU32("llama.rope.dimension_count", 4);
  g.SetText("tokenizer.ggml.model", "gpt2");
  g.SetText("tokenizer.ggml.pre", "llama-bpe");
  g.Set("tokenizer.ggml.tokens", GgufType::kArray,
        RawStrings({"a", "b", "c", "d", "e", "f", "ab", "cd", "<s>", "</s>"}));
  g.Set("tokenizer.ggml.token_type", GgufType::kArray,
        RawArray<int32_t>(GgufType::kInt32, {1, 1, 1, 1, 1, 1, 1, 1, 3, 3}));
  g.Set("tokenizer.ggml.merges", GgufType::kArray, RawStrings({"a b", "c d"}));
  g.SetU32("tokenizer.ggml.bos_token_id", 8);
  g.SetU32("tokenizer.ggml.eos_token_id", 9);
  g.AddTensor("token_embd.weight", {8, 10});
  for (int i = 0; i < 2; ++i) {
    const std::string b = absl::StrCat("blk.", i, ".");
    g.AddTensor(b + "attn_norm.weight", {8});
    g.AddTensor(b + "attn_q.weight", {8, 8});
    g.AddTensor(b + "attn_k.weight", {8, 4});
    g.AddTensor(b + "attn_v.weight", {8, 4});
    g.AddTensor(b + "attn_output.weight", {8, 8});
    g.AddTensor(b + "ffn_norm.weight", {8});
    g.AddTensor(b + "ffn_gate.weight", {8, 12});
    g.AddTensor(b + "ffn_up.weight", {8, 12});
    g.AddTensor(b + "ffn_down.weight", {12, 8});
  }
  g.AddTensor("output_norm.weight", {8});
  return g;
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_WORKER_MODEL_RAW_GGUF_H_
