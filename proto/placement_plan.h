// PlacementPlan: what goes where, what every byte is for, and how fast it will be. Immutable once
// made, versioned, stamped with an epoch by whoever puts it into service.
#ifndef MILLRACE_PROTO_PLACEMENT_PLAN_H_
#define MILLRACE_PROTO_PLACEMENT_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "proto/bytes.h"
#include "proto/cluster_spec.h"
#include "proto/dtype.h"
#include "proto/ids.h"
#include "proto/objective.h"

namespace millrace {

// 2: blocks may be split between CPU and GPU (BlockPlacement::cpu_shares). 3: tensors may be held in
// other types than the file's (BlockPlacement::stored_types). Plans of older versions have none and are
// read as they are.
inline constexpr int kPlanFormatVersion = 3;
inline constexpr int kOldestPlanFormatVersion = 1;

// Where a block's weights live. On disk: read again for every pass, only beside a GPU, which they are
// streamed to.
enum class Home : uint8_t { kDevice, kHost, kDisk };

// A contiguous run of blocks on one device of one worker. Stages are ordered; stage i's hidden
// states go to stage i + 1.
struct Stage {
  WorkerId worker;
  DeviceId device;
  DeviceKind device_kind = DeviceKind::kCpu;
  std::string address;  // of the worker; empty for the process itself
  int first_block = 0;  // indices into BlocksOf(model)
  int end_block = 0;    // exclusive
  // The ring on the device that host-homed blocks of a GPU stage stream into, raw staging not
  // counted; zero where nothing streams. See proto/stream_layout.h.
  Bytes stream_ring{};
};

// A feed-forward block's intermediate units are the rows of its gate and up matrices and the columns of
// its down matrix. Parts of a block are whole multiples of this: a quantised super-block of columns, and
// of any device's tiles.
inline constexpr int kUnitGrain = 256;

// How many of a block's first units the CPU computes in passes of up to max_tokens.
struct CpuShare {
  int max_tokens = 0;
  int units = 0;  // a multiple of kUnitGrain, or all
};

// A tensor that is held in another type than the model file's: converted when it is loaded. See
// proto/stored_types.h.
struct StoredType {
  std::string tensor;  // as in the file
  DType dtype{};

  bool operator==(const StoredType&) const = default;
};

// How one block is held and used.
struct BlockPlacement {
  int block = 0;
  std::string name;  // BlockName
  int stage = 0;
  Home home = Home::kDevice;
  // Host-homed feed-forward blocks of a GPU stage: passes of up to this many tokens are computed by
  // the CPU, larger ones stream to the device. 0 = always stream, as other blocks do; up to
  // max_pass_tokens. A CPU stage computes every pass itself.
  int host_route_max_tokens = 0;
  // Bytes where it is homed; 0 for bytes shared with another block. On the host as in the file,
  // norms and biases included, which a GPU stage holds on its device besides.
  Bytes weights;
  std::string precision;  // of its matrices as they are held, e.g. "q4_K q6_K", "f16 (from f32)"
  // Of an attention block of a GPU stage, where its keys and values lie: on the device, or in host memory
  // that the device reads over the link.
  Home kv_home = Home::kDevice;
  // Of a block that may have a host route, in passes larger than host_route_max_tokens: by growing
  // max_tokens, the first share that the pass fits counts. The CPU computes its units, the others stream,
  // both at the same time, and the device adds the two. Larger passes than any share's stream whole.
  // Empty: the block is never split.
  std::vector<CpuShare> cpu_shares = {};
  // Those of the block's tensors that are not held as in the file, in the model's order. A tensor of two
  // blocks (a tied output) stands in both.
  std::vector<StoredType> stored_types = {};
};

enum class Purpose : uint8_t { kWeights, kKvCache, kActivations, kOverhead, kStreamRing };

// One line of the ledger. `memory` is a device id, or "host" for host memory taken beside a GPU.
struct LedgerEntry {
  WorkerId worker;
  std::string memory;
  Purpose purpose{};
  Bytes bytes;  // upper bound
};

// Per memory: what may be used and what the plan uses.
struct LedgerTotal {
  WorkerId worker;
  std::string memory;
  Bytes budget;
  Bytes used;
};

struct Prediction {
  absl::Duration ttft;  // for a prompt of `prompt_tokens`
  int prompt_tokens = 0;
  absl::Duration time_per_token;  // decode, batch 1
  double decode_tokens_per_second = 0;
  double prefill_tokens_per_second = 0;
  int decode_batch = 1;  // sequences decoding together: the plan's slots
  double batch_tokens_per_second = 0;  // of all of them
  absl::Duration objective_time;       // of one round of the plan's objective
  std::vector<absl::Duration> stage_time_per_token;  // by stage, hops excluded
  absl::Duration hop_time_per_token;
  // Where the search was cut short: as it counts time, no placement over the devices that it was given
  // saves more than this share of this plan's. 0: proven to be the best.
  double search_gap = 0;
};

struct PlacementPlan {
  int format_version = kPlanFormatVersion;
  Epoch epoch;
  std::string model;              // the reference it was planned for, as given
  std::string model_fingerprint;  // FingerprintOf(ModelSpec): workers refuse another model
  int context = 0;                // tokens per slot
  int slots = 1;                  // sequences that may run together
  DType kv_type = DType::kF16;
  int max_pass_tokens = 512;  // largest pass; prompts are prefilled in chunks of this
  std::vector<Stage> stages;
  std::vector<BlockPlacement> blocks;
  std::vector<LedgerEntry> ledger;
  std::vector<LedgerTotal> totals;
  Prediction predicted;
  std::string binding_constraint;  // a sentence: what limits decode speed
  Objective objective;             // what it was chosen for
};

absl::string_view PurposeName(Purpose purpose);

// What the CPU computes of a host-homed feed-forward block of a GPU stage with `d_ff` units: views of a
// BlockPlacement's two fields.
struct CpuWork {
  int host_route_max_tokens = 0;
  absl::Span<const CpuShare> shares = {};

  // Units in a pass of `tokens`.
  int Units(int tokens, int d_ff) const;
  // The fewest units of any pass of up to `max_pass_tokens`: no more than the others ever stream.
  int LeastUnits(int max_pass_tokens, int d_ff) const;
  // The largest pass of up to `max_pass_tokens` in which the CPU computes any; 0: none.
  int LargestPass(int max_pass_tokens) const;
};
inline CpuWork CpuWorkOf(const BlockPlacement& block) {
  return {block.host_route_max_tokens, block.cpu_shares};
}

struct ModelSpec;
// 16 hex digits over the architecture, dimensions, tensor names, types, shapes and sizes, types and sizes
// as in the file. Equal for equal models in different folders; not a hash of the weights.
std::string FingerprintOf(const ModelSpec& model);

}  // namespace millrace

#endif  // MILLRACE_PROTO_PLACEMENT_PLAN_H_
