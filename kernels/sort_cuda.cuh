// The 128 largest of many keys: a warp sorts 128 in registers, and two sorted lists become the best
// 128 of both in eight steps. Bitonic networks: no branches on data, hence always the same time.
//
// A key puts a logit's order into its high half and the complement of its token id into its low
// one: a larger key is a larger logit, or the same with a lower id. 0 is below every key.
#ifndef MILLRACE_KERNELS_SORT_CUDA_CUH_
#define MILLRACE_KERNELS_SORT_CUDA_CUH_

#include <stdint.h>

namespace millrace::cuda {

using SortKey = unsigned long long;

constexpr int kListKeys = 128;  // of a list
constexpr int kLaneKeys = 4;    // key r of lane l is number 4 l + r of the warp's list
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ SortKey MakeKey(float logit, int32_t token) {
  const uint32_t bits = logit == 0.0f ? 0u : __float_as_uint(logit);  // -0 equals 0
  const uint32_t order = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<SortKey>(order) << 32 | ~static_cast<uint32_t>(token);
}
__device__ __forceinline__ float LogitOf(SortKey key) {
  const uint32_t order = static_cast<uint32_t>(key >> 32);
  return __uint_as_float((order & 0x80000000u) != 0 ? order & 0x7fffffffu : ~order);
}
__device__ __forceinline__ int32_t TokenOf(SortKey key) {
  return static_cast<int32_t>(~static_cast<uint32_t>(key));
}

// Puts keys `stride` apart in order: descending where bit `size` of their number is clear.
__device__ __forceinline__ void SortStep(SortKey (&keys)[kLaneKeys], int lane, int size,
                                         int stride) {
#pragma unroll
  for (int r = 0; r < kLaneKeys; ++r) {
    const int number = lane * kLaneKeys + r;
    const bool descending = (number & size) == 0;
    if (stride >= kLaneKeys) {
      const SortKey other = __shfl_xor_sync(kAllLanes, keys[r], stride / kLaneKeys);
      const bool first = (number & stride) == 0;
      keys[r] = (keys[r] > other) == (descending == first) ? keys[r] : other;
    } else if ((r & stride) == 0) {
      const SortKey a = keys[r], b = keys[r + stride];
      const bool keep = (a > b) == descending;
      keys[r] = keep ? a : b;
      keys[r + stride] = keep ? b : a;
    }
  }
}

// Sorts the warp's 128 keys, the largest first.
__device__ __forceinline__ void WarpSort(SortKey (&keys)[kLaneKeys]) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int size = 2; size <= kListKeys; size *= 2) {
#pragma unroll
    for (int stride = size / 2; stride > 0; stride /= 2) SortStep(keys, lane, size, stride);
  }
}

// The warp's sorted list becomes the best 128 of it and of the sorted list at `other` (16-byte
// aligned), sorted.
__device__ __forceinline__ void MergeList(SortKey (&keys)[kLaneKeys], const SortKey* other) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const ulonglong2* from = reinterpret_cast<const ulonglong2*>(other + (31 - lane) * kLaneKeys);
  const ulonglong2 low = from[0], high = from[1];
  const SortKey reversed[kLaneKeys] = {high.y, high.x, low.y, low.x};
#pragma unroll
  for (int r = 0; r < kLaneKeys; ++r) keys[r] = keys[r] > reversed[r] ? keys[r] : reversed[r];
#pragma unroll
  for (int stride = kListKeys / 2; stride > 0; stride /= 2) SortStep(keys, lane, kListKeys, stride);
}

__device__ __forceinline__ void StoreList(const SortKey (&keys)[kLaneKeys], SortKey* to) {
  ulonglong2* out = reinterpret_cast<ulonglong2*>(to + threadIdx.x % 32 * kLaneKeys);
  out[0] = make_ulonglong2(keys[0], keys[1]);
  out[1] = make_ulonglong2(keys[2], keys[3]);
}

// The first warp's list becomes the best 128 of the sorted lists of all kWarps (a power of two)
// warps of the block; the others' become undefined. All threads of the block call it, once.
template <int kWarps>
__device__ __forceinline__ void BlockMerge(SortKey (&keys)[kLaneKeys]) {
  __shared__ __align__(16) SortKey lists[kWarps / 2][kListKeys];
  const int warp = static_cast<int>(threadIdx.x / 32);
#pragma unroll 1
  for (int half = kWarps / 2; half > 0; half /= 2) {
    if (warp >= half && warp < 2 * half) StoreList(keys, lists[warp - half]);
    __syncthreads();
    if (warp < half) MergeList(keys, lists[warp]);
    __syncthreads();
  }
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_SORT_CUDA_CUH_
