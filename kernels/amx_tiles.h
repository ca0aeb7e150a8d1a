// The eight tile registers of AMX, each 16 rows of 64 bytes. Included only by the file compiled for
// AMX; the tests have a plain C++ stand-in with the same members (tests/kernels/emulated_tiles.h).
//
// One object per thread and scope: it configures the thread's tiles and releases them again. The
// process must have been given the tile state first (RequestTileState in cpu_context.cc). Written
// as assembly because the compilers' own functions take no tile numbers from templates and do not
// say that a tile load reads memory.
#ifndef MILLRACE_KERNELS_AMX_TILES_H_
#define MILLRACE_KERNELS_AMX_TILES_H_

#include <stdint.h>

namespace millrace {
namespace {

class AmxTiles {
 public:
  AmxTiles() {
    struct alignas(64) Config {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    static_assert(sizeof(Config) == 64);
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~AmxTiles() { asm volatile("tilerelease"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  template <int kTile>
  void Zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  // 16 rows of 64 bytes, one behind the other.
  template <int kTile>
  void Load(const void* p) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(kStride), "i"(kTile) : "memory");
  }
  template <int kTile>
  void Store(void* p) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(kStride), "i"(kTile) : "memory");
  }
  // c[i][j] += sum over the 32 values k of a[i][k] * b[k / 2][j][k % 2]: bf16 operands, f32 c.
  template <int kC, int kA, int kB>
  void Dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA), "i"(kB));
  }

 private:
  static constexpr int64_t kStride = 64;
};

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_AMX_TILES_H_
