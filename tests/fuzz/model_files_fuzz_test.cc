// The fuzzers' functions over seeds and random mutations of them, in every build.
#include "tests/fuzz/model_files_fuzz.h"

#include <functional>
#include <random>
#include <string>

#include "gtest/gtest.h"
#include "tests/worker/model/raw_gguf.h"

namespace millrace {
namespace {

using Target = std::function<void(const uint8_t*, size_t)>;

std::string TinySafetensors() {
  std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return Raw<uint64_t>(header.size()) + header + std::string(32, '\x11');
}

// One to eight changes: a byte, a run of bytes removed or repeated, a word made extreme.
std::string Mutate(std::string bytes, std::mt19937_64& random) {
  const int changes = 1 + static_cast<int>(random() % 8);
  for (int i = 0; i < changes && bytes.size() > 16; ++i) {
    const size_t at = random() % (bytes.size() - 9);
    const size_t run = 1 + random() % 8;
    switch (random() % 5) {
      case 0:
        bytes[at] = static_cast<char>(random());
        break;
      case 1:
        bytes.erase(at, run);
        break;
      case 2:
        bytes.insert(at, bytes.substr(at, run));
        break;
      case 3:
        bytes.replace(at, 8, Raw<uint64_t>(~uint64_t{0} >> (random() % 64)));
        break;
      default:
        bytes.resize(at + run);
    }
  }
  return bytes;
}

void RunMutations(const std::string& seed, int rounds, const Target& target) {
  std::mt19937_64 random(20261124);
  target(reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
  target(nullptr, 0);
  for (int i = 0; i < rounds; ++i) {
    const std::string bytes = Mutate(seed, random);
    target(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
}

TEST(ModelFilesFuzzTest, MutatedGgufNeverCrashes) {
  RunMutations(TinyLlama().Bytes(), 20000, FuzzGguf);
}

TEST(ModelFilesFuzzTest, MutatedSafetensorsNeverCrashes) {
  RunMutations(TinySafetensors(), 20000, FuzzSafetensors);
}

}  // namespace
}  // namespace millrace
