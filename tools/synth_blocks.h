// Random weights in any storage type, drawn directly as blocks.
#ifndef MILLRACE_TOOLS_SYNTH_BLOCKS_H_
#define MILLRACE_TOOLS_SYNTH_BLOCKS_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "proto/dtype.h"

namespace millrace {

// SplitMix64 (Steele, Lea, Flood 2014): a 64-bit counter through a mixing function.
class SplitMix {
 public:
  explicit SplitMix(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

// Fills `out` (whole blocks) with values of mean `mean` (plain floats only; 0 for block types) and
// standard deviation `sigma`: normal for floats, uniform within a block for block types.
void FillRandomBlocks(DType dtype, double mean, double sigma, uint64_t seed,
                      absl::Span<std::byte> out);

// Nearest IEEE half, ties to even; subnormals kept, overflow to infinity.
uint16_t HalfBits(float value);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_SYNTH_BLOCKS_H_
