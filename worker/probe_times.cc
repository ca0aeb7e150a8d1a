#include "worker/probe_times.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/device_time_table.h"
#include "proto/status_macros.h"
#include "worker/decoder_block.h"
#include "worker/kv_cache.h"
#include "worker/probe_model.h"
#include "worker/probe_passes.h"

namespace millrace {
namespace {

constexpr DType kTypes[] = {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kQ8_0, DType::kF16};
constexpr int kTokens[] = {1, 2, 4, 8, 16, 32, 64, 128, 512, 2048};
constexpr int kMostTokens = 2048;
constexpr ProbeShape kShapes[] = {{2048, 4096}, {4096, 14336}, {8192, 28672}};
// Weights of one measurement are read from memory, not from a cache that held them from before.
constexpr Bytes kBeyondCaches = 300_MiB;
// The attention halves' caches and weights, activations of 2048 rows.
constexpr Bytes kLeastRoom = 3_GiB;

// Passes long enough that the difference of two is well above what a pass takes by itself.
int TimesFor(Bytes weights, int tokens) {
  const double small = static_cast<double>(weights.count()) * (1 + tokens / 128.0);
  return std::clamp(static_cast<int>(3e9 / small), 3, 40);
}

absl::Status AddProducts(const TimingOptions& options, ProbeShape shape, DType type,
                         DeviceTimes& times) {
  const Bytes half = ProbePlacedBytes(ProbeModel(shape, type, 1, ProbePart::kFeedForward));
  const int layers = std::clamp(static_cast<int>(kBeyondCaches.count() / half.count()) + 1, 1, 24);
  MILLRACE_ASSIGN_OR_RETURN(
      auto bench,
      PassBench::Create(options, ProbeModel(shape, type, layers, ProbePart::kFeedForward), 64,
                        kMostTokens, kMostTokens));
  const std::vector<TensorSpec>& t = bench->spec().tensors;
  const std::vector<std::byte> bytes = ProbeWeights(type, t[0].size);
  std::vector<FeedForwardWeights> halves(static_cast<size_t>(layers));
  for (size_t l = 0; l < halves.size(); ++l) {
    MILLRACE_ASSIGN_OR_RETURN(halves[l].gate_up, bench->Place({&t[3 * l], &t[3 * l + 1]}, bytes));
    MILLRACE_ASSIGN_OR_RETURN(halves[l].down, bench->Place({&t[3 * l + 2]}, bytes));
    halves[l].units = shape.d_ff;
  }
  MILLRACE_RETURN_IF_ERROR(bench->Finish());
  const auto ops = [&](int count) -> absl::Status {
    const PassBuffers buffers = bench->backend().buffers();
    for (int i = 0; i < count; ++i) {
      MILLRACE_RETURN_IF_ERROR(ForwardFeedForward(
          bench->backend(), halves[static_cast<size_t>(i % layers)], bench->norm(), buffers));
    }
    return absl::OkStatus();
  };
  for (int tokens : kTokens) {
    const Bytes weights = t[0].size + t[1].size + t[2].size;
    MILLRACE_ASSIGN_OR_RETURN(
        const double seconds,
        bench->Seconds(tokens, tokens > 64, 0, 1, 1 + TimesFor(weights, tokens), ops));
    times.products.push_back({type, tokens, weights, seconds});
    if (type != DType::kQ4_K || shape.d_model != kShapes[1].d_model) continue;
    // The same for long: what one half takes is within the pass that is taken off.
    MILLRACE_ASSIGN_OR_RETURN(const double pass, bench->PassSeconds(tokens, tokens > 64, ops));
    MILLRACE_ASSIGN_OR_RETURN(
        const double lasting,
        bench->SustainedSeconds(tokens, tokens > 64, 8 * TimesFor(weights, tokens), pass - seconds,
                                ops));
    times.sustained.push_back({tokens, std::max(1.0, lasting / seconds)});
  }
  return absl::OkStatus();
}

// Attention halves of a model of the middle size.
class AttentionBench {
 public:
  static constexpr int kContext = 2048, kSlots = 64, kLayers = 12;
  static constexpr DType kType = DType::kQ4_K;

  static absl::StatusOr<std::unique_ptr<AttentionBench>> Create(const TimingOptions& options) {
    auto made = std::unique_ptr<AttentionBench>(new AttentionBench);
    MILLRACE_ASSIGN_OR_RETURN(
        made->bench_,
        PassBench::Create(options, ProbeModel(kShapes[1], kType, kLayers, ProbePart::kAttention),
                          kSlots, kContext, kContext));
    const std::vector<TensorSpec>& t = made->bench_->spec().tensors;
    const std::vector<std::byte> bytes = ProbeWeights(kType, t[0].size);
    for (size_t l = 0; l < kLayers; ++l) {
      AttentionWeights half;
      MILLRACE_ASSIGN_OR_RETURN(
          half.qkv, made->bench_->Place({&t[4 * l], &t[4 * l + 1], &t[4 * l + 2]}, bytes));
      MILLRACE_ASSIGN_OR_RETURN(half.output, made->bench_->Place({&t[4 * l + 3]}, bytes));
      made->halves_.push_back(half);
    }
    // Two layers' caches in turn: those of few short sequences stay in the second-level cache,
    // where a whole model's would not.
    MILLRACE_ASSIGN_OR_RETURN(
        made->cache_, KvCache::Create(made->bench_->backend(), made->bench_->spec(), {0, 1}, {},
                                      {kSlots, kContext, DType::kF16}));
    MILLRACE_RETURN_IF_ERROR(made->bench_->Finish());
    return made;
  }

  absl::StatusOr<double> Seconds(int rows, bool prompt, int depth) {
    const auto ops = [&](int count) -> absl::Status {
      const PassBuffers buffers = bench_->backend().buffers();
      for (int i = 0; i < count; ++i) {
        MILLRACE_RETURN_IF_ERROR(ForwardAttention(bench_->backend(), layer(),
                                                  halves_[static_cast<size_t>(i % kLayers)],
                                                  cache_.layer(i % 2), bench_->norm(), buffers));
      }
      return absl::OkStatus();
    };
    return bench_->Seconds(rows, prompt, depth, 1, prompt ? 7 : 41, ops);
  }

  const LayerSpec& layer() const { return bench_->spec().layers.front(); }
  double weights() const {
    double sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<double>(bench_->spec().tensors[i].size.count());
    return sum;
  }

 private:
  AttentionBench() = default;

  std::unique_ptr<PassBench> bench_;
  std::vector<AttentionWeights> halves_;
  KvCache cache_;
};

// `products`: seconds of a feed-forward half of that many bytes and rows.
absl::Status AddAttention(const TimingOptions& options,
                          const std::function<double(int rows, double bytes)>& products,
                          DeviceTimes& times) {
  MILLRACE_ASSIGN_OR_RETURN(auto bench, AttentionBench::Create(options));
  const double per_token =
      static_cast<double>(KvBytesPerToken(bench->layer(), DType::kF16).count());
  constexpr int kShallow = 511, kDeep = 1791;
  struct Half {
    int sequences;
    double low, high;  // seconds at the two depths
  };
  std::vector<Half> halves;
  std::vector<double> slopes;
  for (int sequences : {1, 2, 4, 8, 16, 32, 64}) {
    MILLRACE_ASSIGN_OR_RETURN(const double low, bench->Seconds(sequences, false, kShallow));
    MILLRACE_ASSIGN_OR_RETURN(const double high, bench->Seconds(sequences, false, kDeep));
    halves.push_back({sequences, low, high});
    slopes.push_back(std::max(0.0, (high - low) / (per_token * sequences * (kDeep - kShallow))));
  }
  // One slope for all: of few sequences the two depths differ by little more than what a launch
  // varies by, and long contexts were read at the others' rate.
  std::nth_element(slopes.begin(), slopes.begin() + slopes.size() / 2, slopes.end());
  const double slope = slopes[slopes.size() / 2];
  for (const Half& half : halves) {
    const double mean_bytes = per_token * half.sequences * (0.5 * (kShallow + kDeep) + 1);
    const double fixed = 0.5 * (half.low + half.high) - slope * mean_bytes -
                         products(half.sequences, bench->weights());
    times.attention.push_back({half.sequences, std::max(0.0, fixed), slope});
  }
  // Beyond the products a prompt's half takes a x rows + b x cells.
  constexpr int kShort = 512, kLong = 2048;
  const auto beyond = [&](int rows) -> absl::StatusOr<double> {
    MILLRACE_ASSIGN_OR_RETURN(const double seconds, bench->Seconds(rows, true, 0));
    return std::max(1e-7, seconds - products(rows, bench->weights()));
  };
  MILLRACE_ASSIGN_OR_RETURN(const double brief, beyond(kShort));
  MILLRACE_ASSIGN_OR_RETURN(const double lengthy, beyond(kLong));
  const auto cells = [](double rows) { return rows * (rows + 1) / 2; };
  const double per_cell = std::max(
      1e-18, (lengthy / kLong - brief / kShort) / (cells(kLong) / kLong - cells(kShort) / kShort));
  times.prompt_row_seconds = std::max(0.0, brief - per_cell * cells(kShort)) / kShort;
  times.attention_flops = 4.0 * bench->layer().heads * bench->layer().head_dim / per_cell;
  return absl::OkStatus();
}

// What a pass takes beside its blocks: what it takes with a head only, less the head's product.
absl::Status AddPass(const TimingOptions& options,
                     const std::function<double(int rows, double bytes)>& products,
                     DeviceTimes& times) {
  constexpr int kRows = 16;
  MILLRACE_ASSIGN_OR_RETURN(
      auto bench,
      PassBench::Create(options, ProbeModel(kShapes[0], DType::kQ4_K, 1, ProbePart::kHead), kRows,
                        kProbeDrawDepth + 1, kRows));
  const TensorSpec& matrix = bench->spec().tensors[0];
  const std::vector<std::byte> bytes = ProbeWeights(matrix.dtype, matrix.size);
  MILLRACE_ASSIGN_OR_RETURN(const WeightsId head, bench->Place({&matrix}, bytes));
  MILLRACE_RETURN_IF_ERROR(bench->Finish());
  const auto draw = [&](int rows) -> absl::StatusOr<double> {
    const auto one = [&]() { return bench->backend().Head(bench->norm(), head, 0, rows); };
    MILLRACE_ASSIGN_OR_RETURN(const double seconds, bench->WholePass(rows, one));
    return seconds - products(rows, static_cast<double>(matrix.size.count()));
  };
  MILLRACE_ASSIGN_OR_RETURN(const double first, draw(1));
  MILLRACE_ASSIGN_OR_RETURN(const double all, draw(kRows));
  times.pass_seconds = std::max(0.0, first);
  times.output_seconds = std::max(0.0, (all - first) / (kRows - 1));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DeviceTimes> MeasureDeviceTimes(const TimingOptions& options) {
  DeviceTimes times;
  if (options.room < kLeastRoom) {
    return absl::ResourceExhaustedError(absl::StrCat("timing ", options.device.value(), " takes ",
                                                     FormatBytes(kLeastRoom), ", ",
                                                     FormatBytes(options.room), " may be used"));
  }
  for (DType type : kTypes) {
    for (const ProbeShape& shape : kShapes) {
      // Twice the weights: room for activations, and for dequantised weights where there are any.
      const Bytes half = ProbePlacedBytes(ProbeModel(shape, type, 1, ProbePart::kFeedForward));
      if (std::max(half, kBeyondCaches) * 2 + 1_GiB > options.room) continue;
      MILLRACE_RETURN_IF_ERROR(AddProducts(options, shape, type, times));
    }
  }
  const DeviceTimeTable table(times);
  const auto products = [&](int rows, double bytes) {
    return table.ProductSeconds(DType::kQ4_K, rows, bytes);
  };
  MILLRACE_RETURN_IF_ERROR(AddAttention(options, products, times));
  MILLRACE_RETURN_IF_ERROR(AddPass(options, products, times));
  return times;
}

}  // namespace millrace
