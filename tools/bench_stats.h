// Median, least and largest of repeated measurements.
#ifndef MILLRACE_TOOLS_BENCH_STATS_H_
#define MILLRACE_TOOLS_BENCH_STATS_H_

#include <vector>

namespace millrace {

struct BenchStats {
  double median = 0, min = 0, max = 0;
};

// All zero for no values. The median of an even number is the mean of the middle two.
BenchStats Summarize(std::vector<double> values);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_BENCH_STATS_H_
