// One block of a K type from 256 values. Used by quantize.cc.
#ifndef MILLRACE_KERNELS_QUANTIZE_K_H_
#define MILLRACE_KERNELS_QUANTIZE_K_H_

#include <cstdint>

namespace millrace {

inline constexpr int kSuperBlock = 256;

// x: [kSuperBlock] finite values; out: a block of the type. False: x is too large for f16 scales.
bool QuantizeQ4K(const float* x, uint8_t* out);
bool QuantizeQ5K(const float* x, uint8_t* out);
bool QuantizeQ6K(const float* x, uint8_t* out);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_QUANTIZE_K_H_
