// Llama 3's scaling of the rotary frequencies.
#ifndef MILLRACE_WORKER_MODEL_ROPE_SCALING_H_
#define MILLRACE_WORKER_MODEL_ROPE_SCALING_H_

#include <vector>

namespace millrace {

struct Llama3Scaling {
  double factor = 8;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  double original_context = 8192;  // tokens
};

// Divisors of the `dims` / 2 rotary frequencies base^(-2i/dims): 1 where the wavelength is under
// original_context / high_freq_factor, `factor` where it is over original_context /
// low_freq_factor, and between them blended linearly in the frequency, as Llama 3.1 published it.
std::vector<float> Llama3FrequencyFactors(double base, int dims, const Llama3Scaling& scaling);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_ROPE_SCALING_H_
