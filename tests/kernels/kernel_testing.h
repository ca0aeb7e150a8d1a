// Shared by the kernel tests: random data, every instruction set this processor has, canaries.
#ifndef MILLRACE_TESTS_KERNELS_KERNEL_TESTING_H_
#define MILLRACE_TESTS_KERNELS_KERNEL_TESTING_H_

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/bench/random_weights.h"
#include "kernels/bench/relative_error.h"
#include "kernels/cpu_context.h"
#include "kernels/views.h"

namespace millrace {

inline std::vector<CpuIsa> AvailableIsas() {
  std::vector<CpuIsa> isas = {CpuIsa::kScalar};
  if (DetectCpuIsa() >= CpuIsa::kAvx2) isas.push_back(CpuIsa::kAvx2);
  if (DetectCpuIsa() >= CpuIsa::kAvx512) isas.push_back(CpuIsa::kAvx512);
  if (DetectCpuIsa() >= CpuIsa::kAmx) isas.push_back(CpuIsa::kAmx);
  return isas;
}

// A context with its own pool and scratch.
class TestContext {
 public:
  TestContext(CpuIsa isa, int threads, size_t scratch_bytes)
      : pool_(threads), scratch_(scratch_bytes + 128) {
    context_.pool = &pool_;
    context_.isa = isa;
    const uintptr_t base = (reinterpret_cast<uintptr_t>(scratch_.data()) + 63) / 64 * 64;
    context_.scratch = reinterpret_cast<std::byte*>(base);
    context_.scratch_bytes = scratch_bytes;
  }
  const CpuContext& get() const { return context_; }

 private:
  ThreadPool pool_;
  std::vector<std::byte> scratch_;
  CpuContext context_;
};

}  // namespace millrace

#endif  // MILLRACE_TESTS_KERNELS_KERNEL_TESTING_H_
