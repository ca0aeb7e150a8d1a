// What the wide kernel does with weights: each warp's copies of tiles, and their fragments in
// registers.
#ifndef MILLRACE_KERNELS_WIDE_FRAGMENTS_CUH_
#define MILLRACE_KERNELS_WIDE_FRAGMENTS_CUH_

#include "kernels/cuda/tile_codec.cuh"
#include "kernels/cuda/warp_copy.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/wide_matmul_params.h"

namespace millrace::cuda {

// The weight tiles of one warp, in the order in which it needs them, `slots` ahead of their
// use. Place(p, unit, rank, warp) says which strip of which matrix a unit needs, and which of its
// tiles: every Shape::kSplits-th from first_tile on, all units alike.
template <typename Shape, typename Place>
class WeightFeed {
 public:
  __device__ WeightFeed(const WideParams& p, uint8_t* ring, uint64_t* barriers, int first_unit,
                        int rank, int warp, int lane)
      : p_(p),
        ring_(ring),
        copy_(barriers, lane, p.slots),
        unit_(first_unit),
        rank_(rank),
        warp_(warp) {
    Enter();
    for (int i = 0; i < p.slots; ++i) Fetch(i);
  }

  // The oldest tile that was not freed.
  __device__ __forceinline__ const uint8_t* Wait() {
    copy_.Wait(slot_, parity_);
    return ring_ + slot_ * p_.slot_bytes;
  }
  // All lanes have read the oldest tile.
  __device__ __forceinline__ void Free() {
    __syncwarp();
    Fetch(slot_);
    if (++slot_ == p_.slots) {
      slot_ = 0;
      parity_ ^= 1;
    }
  }
  __device__ __forceinline__ uint32_t zero() const { return p_.zero; }

 private:
  // The strip of unit_, if there is one.
  __device__ __forceinline__ void Enter() {
    left_ = 0;
    if (unit_ >= p_.row_pairs * p_.token_tiles) return;
    const Place place(p_, unit_, rank_, warp_);
    const WideParams::Matrix& m = p_.matrix[place.matrix];
    next_ = m.tiles + place.strip * m.strip_bytes + place.first_tile * m.tile_bytes;
    left_ = place.tiles;
    bytes_ = m.tile_bytes;
  }
  __device__ __forceinline__ void Fetch(int slot) {
    if (left_ > 0) {
      copy_.Begin(slot, bytes_);
      copy_.Copy(slot, ring_ + slot * p_.slot_bytes, next_, bytes_);
      next_ += Shape::kSplits * bytes_;
      if (--left_ == 0) {
        unit_ += static_cast<int>(gridDim.x) / Shape::kCluster;
        Enter();
      }
    }
    copy_.End();
  }

  const WideParams& p_;
  uint8_t* const ring_;
  WarpCopy<Shape::kMostSlots> copy_;
  const uint8_t* next_ = nullptr;
  uint32_t bytes_ = 0;
  int left_ = 0, unit_, slot_ = 0;
  const int rank_, warp_;
  uint32_t parity_ = 0;
};

// The fragments of group `g` of a tile. After ProductWait for what last read the registers of `a`.
template <DType T>
__device__ __forceinline__ void WideFragments(const typename TileCodec<T>::Codes& codes,
                                              const typename TileCodec<T>::Scales& scales, int g,
                                              uint32_t zero, uint32_t (&a)[8]) {
  TileCodec<T>::Fragments(codes, scales, g / TileCodec<T>::kStep, g % TileCodec<T>::kStep, a);
  if constexpr (T == DType::kF16) MoveFragments(a, zero);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_WIDE_FRAGMENTS_CUH_
