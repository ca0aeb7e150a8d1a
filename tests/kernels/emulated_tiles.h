// Tile registers in plain C++, with the members of AmxTiles (kernels/amx_tiles.h): lets the tile
// kernels be tested on processors without AMX. Semantics after Intel's Software Developer's Manual,
// volume 2, TDPBF16PS: for each row of a, its pairs in order, even value first; f32 sums without
// the fused rounding the processor may use.
#ifndef MILLRACE_TESTS_KERNELS_EMULATED_TILES_H_
#define MILLRACE_TESTS_KERNELS_EMULATED_TILES_H_

#include <stdint.h>
#include <string.h>

#include "kernels/fp16.h"

namespace millrace {
namespace {

class EmulatedTiles {
 public:
  // What a tile holds before it is loaded is nobody's business: poison.
  EmulatedTiles() { memset(tiles_, 0xff, sizeof(tiles_)); }
  template <int kTile>
  void Zero() {
    memset(tiles_[kTile], 0, 1024);
  }
  template <int kTile>
  void Load(const void* p) {
    memcpy(tiles_[kTile], p, 1024);
  }
  template <int kTile>
  void Store(void* p) {
    memcpy(p, tiles_[kTile], 1024);
  }
  template <int kC, int kA, int kB>
  void Dot() {
    float c[16][16];
    uint16_t a[16][32], b[16][16][2];
    memcpy(c, tiles_[kC], 1024);
    memcpy(a, tiles_[kA], 1024);
    memcpy(b, tiles_[kB], 1024);
    for (int i = 0; i < 16; ++i) {
      for (int k = 0; k < 16; ++k) {
        const float even = Bf16ToFloat(a[i][2 * k]), odd = Bf16ToFloat(a[i][2 * k + 1]);
        for (int j = 0; j < 16; ++j) {
          c[i][j] += even * Bf16ToFloat(b[k][j][0]);
          c[i][j] += odd * Bf16ToFloat(b[k][j][1]);
        }
      }
    }
    memcpy(tiles_[kC], c, 1024);
  }

 private:
  alignas(64) uint8_t tiles_[8][1024];
};

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_TESTS_KERNELS_EMULATED_TILES_H_
