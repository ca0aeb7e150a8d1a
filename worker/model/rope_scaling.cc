#include "worker/model/rope_scaling.h"

#include <cmath>

namespace millrace {

std::vector<float> Llama3FrequencyFactors(double base, int dims, const Llama3Scaling& scaling) {
  constexpr double kTurn = 2.0 * 3.14159265358979323846;
  std::vector<float> factors;
  for (int i = 0; i < dims / 2; ++i) {
    const double wavelength = kTurn * std::pow(base, 2.0 * i / dims);
    // How many whole turns the pair makes over the original context.
    const double turns = scaling.original_context / wavelength;
    double divisor = 1.0;
    if (turns < scaling.low_freq_factor) {
      divisor = scaling.factor;
    } else if (turns <= scaling.high_freq_factor) {
      const double smooth =
          (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
      divisor = 1.0 / ((1.0 - smooth) / scaling.factor + smooth);
    }
    factors.push_back(static_cast<float>(divisor));
  }
  return factors;
}

}  // namespace millrace
