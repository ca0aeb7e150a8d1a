// A KV cache in host memory, for tests.
#ifndef MILLRACE_TESTS_KERNELS_HOST_CACHE_H_
#define MILLRACE_TESTS_KERNELS_HOST_CACHE_H_

#include <vector>

#include "kernels/attention.h"

namespace millrace {

// Every byte is 0xff at first: NaN in every float type, so that reading what
// was not written shows.
struct HostCache {
  HostCache(DType dtype, int slots, int context, int kv_heads, int head_dim)
      : k(static_cast<size_t>(slots) * kv_heads * context * RowBytes(dtype, head_dim).count(),
          0xff),
        v(k),
        view{k.data(), v.data(), dtype, slots, context, kv_heads, head_dim} {}
  HostCache(const HostCache&) = delete;
  HostCache& operator=(const HostCache&) = delete;

  std::vector<uint8_t> k, v;
  KvView view;
};

}  // namespace millrace

#endif  // MILLRACE_TESTS_KERNELS_HOST_CACHE_H_
