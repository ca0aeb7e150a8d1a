// What a pass's rows are, as device kernels read it.
#ifndef MILLRACE_KERNELS_PASS_ROWS_H_
#define MILLRACE_KERNELS_PASS_ROWS_H_

namespace millrace::cuda {

// Device arrays [n]: of each row of the pass, its slot in the cache and its position in the
// sequence. They are read on the device only, so a captured launch may be replayed with other
// contents. A row with a negative position is left out: nothing is read or written for it.
struct PassRows {
  const int* slot = nullptr;
  const int* position = nullptr;
  int n = 0;
};

// Most rows of one AttentionTile.
inline constexpr int kAttentionTileRows = 128;

// Rows [first_row, first_row + rows) of the pass are the positions [first_position,
// first_position + rows) of the sequence in `slot`; 0 <= rows <= kAttentionTileRows.
struct AttentionTile {
  int first_row = 0;
  int rows = 0;
  int slot = 0;
  int first_position = 0;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_PASS_ROWS_H_
