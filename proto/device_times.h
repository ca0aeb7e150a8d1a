// What a GPU takes for the pieces of a pass, measured with the kernels and the path that the runtime
// uses. Empty: not measured; bandwidths and estimates stand in (planner/cost_model.h).
#ifndef MILLRACE_PROTO_DEVICE_TIMES_H_
#define MILLRACE_PROTO_DEVICE_TIMES_H_

#include <vector>

#include "proto/bytes.h"
#include "proto/dtype.h"

namespace millrace {

// A feed-forward half whose matrices are all of `type`, as in the file `weights` bytes together, in a
// pass of `tokens` rows: two launches, norm and SwiGLU included.
struct ProductTime {
  DType type{};
  int tokens = 1;
  Bytes weights;
  double seconds = 0;

  bool operator==(const ProductTime&) const = default;
};

// What an attention half takes beyond a feed-forward half with as many bytes of weights, `sequences` rows
// of one sequence each: fixed_seconds + seconds_per_byte x (bytes of keys and values read for all).
struct AttentionTime {
  int sequences = 1;
  double fixed_seconds = 0;
  double seconds_per_byte = 0;

  bool operator==(const AttentionTime&) const = default;
};

// A device that works for long draws more power than it may and slows down: how much longer the products
// of a pass of `tokens` rows take then.
struct SustainedRatio {
  int tokens = 1;
  double ratio = 1;

  bool operator==(const SustainedRatio&) const = default;
};

struct DeviceTimes {
  std::vector<ProductTime> products;     // for every type the same sizes and, of each, tokens
  std::vector<AttentionTime> attention;  // by growing sequences
  std::vector<SustainedRatio> sustained; // by growing tokens
  // The same of a prompt: seconds for each row, and multiply-adds x 2 per second over the cells that the
  // mask leaves.
  double prompt_row_seconds = 0, attention_flops = 0;
  // Beside the blocks, for each pass, and for each row that a token is drawn from.
  double pass_seconds = 0, output_seconds = 0;

  bool measured() const { return !products.empty(); }
  bool operator==(const DeviceTimes&) const = default;
};

}  // namespace millrace

#endif  // MILLRACE_PROTO_DEVICE_TIMES_H_
