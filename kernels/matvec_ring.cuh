// Ring: one warp's weights on their way through a launch of matvec_cuda.cuh, and where they come from.
#ifndef MILLRACE_KERNELS_MATVEC_RING_CUH_
#define MILLRACE_KERNELS_MATVEC_RING_CUH_

#include "kernels/cuda/packets.cuh"
#include "kernels/cuda/warp_copy.cuh"
#include "kernels/matvec_cuda.h"

namespace millrace::cuda::matvec {

constexpr int kWarps = 16;
constexpr int kMostStages = 6;  // under way in a ring

// An op as the kernel reads it.
struct Op {
  SmallMatmulParams p;
  DType dtype = DType::kF16;
  bool swiglu = false;
  bool beside = false;
  bool norm_is_there = false;  // the op before read the same norm
  int tile_bytes = 0;
  int tile_cols = 0;
  int stage_tiles = 0;  // consecutive tiles copied at a time
  int shift = 0;        // block b's first strip is (b + shift) mod the number of blocks
  // Where what the op before hands on comes from, and where this op's goes; null: plain memory.
  const uint64_t* from = nullptr;
  uint64_t* to = nullptr;
  uint32_t from_flag = 0, to_flag = 0;  // the epoch is added
};

// Offsets in 64-bit words of a row of packets: pairs of halves, parts of the sum of squares, prescale.
constexpr int kSquarePackets = kMostMatvecCols / 2;
constexpr int kPrescalePacket = kSquarePackets + kDeferredNormParts;

struct Params {
  Op ops[kMostMatvecs];
  int count = 0;
  int ring_bytes = 0;  // of each warp
  int row_bytes = 0;   // of the longest activation row, before the rings
  const uint32_t* epoch = nullptr;
};

// The strips of an op that a block takes: first, first + blocks, ...; with SwiGLU each is two parts, gate's
// and up's. The stages of all its parts are the warps' in turn.
struct Share {
  int first, parts, per_part;  // per_part: stages

  __device__ __forceinline__ explicit Share(const Op& op) {
    const int blocks = static_cast<int>(gridDim.x);
    first = static_cast<int>(blockIdx.x) + op.shift;
    if (first >= blocks) first -= blocks;
    const int strips = first < op.p.strips ? (op.p.strips - first + blocks - 1) / blocks : 0;
    parts = op.swiglu ? 2 * strips : strips;
    per_part = (op.p.tiles_per_strip + op.stage_tiles - 1) / op.stage_tiles;
  }
  __device__ __forceinline__ int Strip(const Op& op, int part) const {
    return first + (op.swiglu ? part / 2 : part) * static_cast<int>(gridDim.x);
  }
};

// Stages come and go in order; each takes its bytes in one piece, at the ring's beginning where the end is
// too short. All lanes call everything together.
class Ring {
 public:
  __device__ Ring(const Params& p, uint8_t* memory, uint64_t* barriers, int warp, int lane)
      : p_(p), memory_(memory), warp_(warp), copy_(barriers, lane, kMostStages) {
    OpenOp(0);
    Fill();
  }

  // The oldest stage, of `bytes` bytes, is there.
  __device__ __forceinline__ const uint8_t* Wait(int bytes) {
    copy_.Wait(slot_, parity_);
    return memory_ + (read_ + bytes > p_.ring_bytes ? 0 : read_);
  }

  // The oldest stage has been read: what fits is fetched in its place.
  __device__ __forceinline__ void Release(int bytes) {
    const bool wraps = read_ + bytes > p_.ring_bytes;
    used_ -= bytes + (wraps ? p_.ring_bytes - read_ : 0);
    read_ = wraps ? bytes : read_ + bytes;
    --stages_;
    if (++slot_ == kMostStages) {
      slot_ = 0;
      parity_ ^= 1;
    }
    __syncwarp();
    Fill();
  }

 private:
  // Fetches stages until one finds no room.
  __device__ __forceinline__ void Fill() {
    while (op_ < p_.count && stages_ < kMostStages) {
      const bool wraps = write_ + bytes_ > p_.ring_bytes;
      const int takes = bytes_ + (wraps ? p_.ring_bytes - write_ : 0);
      if (used_ + takes > p_.ring_bytes) return;
      if (wraps) write_ = 0;
      copy_.Begin(next_slot_, static_cast<uint32_t>(bytes_));
      copy_.Copy(next_slot_, memory_ + write_, part_data_ + stage_ * stage_bytes_,
                 static_cast<uint32_t>(bytes_));
      write_ += bytes_;
      used_ += takes;
      ++stages_;
      if (++next_slot_ == kMostStages) next_slot_ = 0;
      bool more = true;
      for (stage_ += kWarps; more && stage_ >= per_part_; stage_ -= per_part_) more = NextPart();
      if (more) {
        SetBytes();
      } else {
        OpenOp(op_ + 1);
      }
    }
  }

  // False: the op has no more.
  __device__ __forceinline__ bool NextPart() {
    const uint8_t* done = part_data_;
    part_data_ = other_data_;
    other_data_ = done + to_next_;
    return --parts_ > 0;
  }

  // The first op from `op` on that has a stage for this warp.
  __device__ __forceinline__ void OpenOp(int op) {
    for (op_ = op; op_ < p_.count; ++op_) {
      const Op& o = p_.ops[op_];
      const Share share(o);
      const int64_t strip_bytes = static_cast<int64_t>(o.p.tiles_per_strip) * o.tile_bytes;
      stage_bytes_ = o.stage_tiles * o.tile_bytes;
      last_bytes_ = static_cast<int>(strip_bytes - static_cast<int64_t>(share.per_part - 1) * stage_bytes_);
      per_part_ = share.per_part;
      parts_ = share.parts;
      // Of two parts in turn each comes again two parts later: gate's and up's, or every other strip.
      to_next_ = strip_bytes * static_cast<int>(gridDim.x) * (o.swiglu ? 1 : 2);
      part_data_ = o.p.w + share.first * strip_bytes;
      other_data_ = o.swiglu ? o.p.up + share.first * strip_bytes : part_data_ + to_next_ / 2;
      for (stage_ = warp_; stage_ >= per_part_ && parts_ > 0; stage_ -= per_part_) NextPart();
      if (parts_ > 0) break;
    }
    SetBytes();
  }

  __device__ __forceinline__ void SetBytes() {
    bytes_ = stage_ == per_part_ - 1 ? last_bytes_ : stage_bytes_;
  }

  const Params& p_;
  uint8_t* const memory_;
  const int warp_;
  WarpCopy<kMostStages> copy_;
  // Bytes: where the next stage goes and the oldest is read, and what lies between.
  int write_ = 0, read_ = 0, used_ = 0;
  int stages_ = 0;               // under way or there
  int next_slot_ = 0, slot_ = 0;  // barriers of the next and the oldest
  uint32_t parity_ = 0;          // of the oldest's
  // The next stage to fetch: of the op, `parts_` of whose parts are left, this one included.
  int op_ = 0, stage_ = 0, bytes_ = 0, parts_ = 0, per_part_ = 1, stage_bytes_ = 0, last_bytes_ = 0;
  const uint8_t *part_data_ = nullptr, *other_data_ = nullptr;  // this part's tiles, the next one's
  int64_t to_next_ = 0;
};

}  // namespace millrace::cuda::matvec

#endif  // MILLRACE_KERNELS_MATVEC_RING_CUH_
