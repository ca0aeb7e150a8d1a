#include "worker/probe_times.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/fp16.h"
#include "proto/status_macros.h"
#include "worker/backend/cuda/gpu_memory.h"
#include "worker/decoder_block.h"
#include "worker/kv_cache.h"

namespace millrace {
namespace {

constexpr DType kTypes[] = {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kQ8_0, DType::kF16};
constexpr int kTokens[] = {1, 2, 4, 8, 16, 32, 64, 128, 512, 2048};
constexpr int kMostTokens = 2048;
struct Shape {
  int d_model, d_ff;
};
constexpr Shape kShapes[] = {{2048, 4096}, {4096, 14336}, {8192, 28672}};
constexpr int kVocab = 131072;
// Of passes that draw tokens: a device that records passes tells them apart by powers of two of the context.
constexpr int kOtherDepth = 700;
// Weights of one measurement are read from memory, not from a cache that held them from before.
constexpr Bytes kBeyondCaches = 300_MiB;

// ---- a model that is nowhere ---------------------------------------------------------------------

void AddTensor(ModelSpec& m, TensorRole role, int layer, DType type, std::vector<int64_t> shape) {
  TensorSpec t;
  t.name = absl::StrCat("probe.", m.tensors.size());
  t.role = role;
  t.layer = layer;
  t.dtype = type;
  const int64_t rows = shape.size() == 2 ? shape[0] : 1;
  t.size = Bytes(rows * RowBytes(type, shape.back()).count());
  t.shape = std::move(shape);
  m.tensors.push_back(std::move(t));
}

enum class Part { kFeedForward, kAttention, kHead };

// Heads as an 8B or 70B model of that width has them. Only the matrices of `part`, and a norm.
ModelSpec SpecOf(Shape shape, DType type, int layers, Part part) {
  ModelSpec m;
  m.architecture = "llama";
  m.name = "probe";
  m.d_model = shape.d_model;
  m.vocab = part == Part::kHead ? kVocab : 32;
  m.context_length = 4096;
  m.rope.dims = 128;
  m.layers.assign(static_cast<size_t>(layers),
                  {shape.d_model / 128, std::max(1, shape.d_model / 512), 128, shape.d_ff});
  const int64_t d = shape.d_model, ff = shape.d_ff;
  const int64_t kv = int64_t{m.layers.front().kv_heads} * 128;
  if (part == Part::kHead) AddTensor(m, TensorRole::kOutput, -1, type, {m.vocab, d});
  for (int l = 0; l < layers && part == Part::kAttention; ++l) {
    AddTensor(m, TensorRole::kAttnQ, l, type, {d, d});
    AddTensor(m, TensorRole::kAttnK, l, type, {kv, d});
    AddTensor(m, TensorRole::kAttnV, l, type, {kv, d});
    AddTensor(m, TensorRole::kAttnOutput, l, type, {d, d});
  }
  for (int l = 0; l < layers && part == Part::kFeedForward; ++l) {
    AddTensor(m, TensorRole::kFfnGate, l, type, {ff, d});
    AddTensor(m, TensorRole::kFfnUp, l, type, {ff, d});
    AddTensor(m, TensorRole::kFfnDown, l, type, {d, ff});
  }
  AddTensor(m, TensorRole::kFfnNorm, -1, DType::kF32, {d});
  return m;
}

Bytes PlacedBytes(const ModelSpec& model) {
  Bytes sum;
  for (const TensorSpec& t : model.tensors) sum += CudaPlacedBytes(t, false);
  return sum;
}

// Offsets of a block's f16 scales.
std::vector<size_t> ScalesOf(DType type) {
  switch (type) {
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ6_K:
      return {208};
    case DType::kQ8_0:
      return {0};
    default:
      return {};
  }
}

// Valid weights: any codes, small scales; F16 values below one.
std::vector<std::byte> RandomBytes(DType type, Bytes size) {
  std::vector<std::byte> bytes(static_cast<size_t>(size.count()));
  const DTypeInfo& info = Info(type);
  std::mt19937_64 rng(17);
  // One stretch of whole blocks, again and again.
  const size_t block = static_cast<size_t>(info.block_bytes);
  const size_t stretch = std::min(bytes.size(), block * 4096);
  for (size_t i = 0; i + 8 <= stretch; i += 8) {
    const uint64_t word = rng();
    std::memcpy(&bytes[i], &word, 8);
  }
  const uint16_t small = FloatToHalf(0.01f);
  for (size_t b = 0; b + block <= stretch; b += block) {
    for (size_t field : ScalesOf(type)) std::memcpy(&bytes[b + field], &small, 2);
    if (type != DType::kF16) continue;
    bytes[b + 1] &= std::byte{0xbb};  // exponents up to 14: below one
  }
  for (size_t at = stretch; at < bytes.size(); at += stretch) {
    std::memcpy(&bytes[at], bytes.data(), std::min(stretch, bytes.size() - at));
  }
  return bytes;
}

// ---- passes --------------------------------------------------------------------------------------

using Ops = absl::FunctionRef<absl::Status(int times)>;

// A device with a model's weights.
class Bench {
 public:
  static absl::StatusOr<std::unique_ptr<Bench>> Create(const TimingOptions& options, ModelSpec spec,
                                                       int slots, int context, int max_tokens) {
    auto bench = std::unique_ptr<Bench>(new Bench(std::move(spec)));
    BackendOptions o;
    o.max_pass_tokens = max_tokens;
    o.slots = slots;
    o.context = context;
    o.last_stage = true;
    o.device = options.device;
    o.weights = PlacedBytes(bench->spec_);
    MILLRACE_ASSIGN_OR_RETURN(bench->backend_, options.make(bench->spec_, o));
    return bench;
  }

  Backend& backend() { return *backend_; }
  const ModelSpec& spec() const { return spec_; }

  // Matrices of one group, all with the same random bytes.
  absl::StatusOr<WeightsId> Place(std::vector<const TensorSpec*> specs,
                                  const std::vector<std::byte>& bytes) {
    std::vector<HostTensor> tensors;
    for (const TensorSpec* t : specs) {
      tensors.push_back({t, absl::MakeConstSpan(bytes).first(static_cast<size_t>(t->size.count()))});
    }
    return backend_->PlaceMatrices(tensors, {});
  }

  absl::Status Finish() {
    norm_values_.assign(static_cast<size_t>(spec_.d_model), 1.0f);
    const auto* bytes = reinterpret_cast<const std::byte*>(norm_values_.data());
    MILLRACE_ASSIGN_OR_RETURN(
        norm_, backend_->PlaceVector({&spec_.tensors.back(), {bytes, norm_values_.size() * 4}}));
    return backend_->FinishLoading();
  }
  const float* norm() const { return norm_; }

  // Seconds of one of `ops`: a pass with many less one with few, which differ in the number of outputs, so
  // that a device that records passes has a record of each. `depth`: tokens in every sequence's cache.
  absl::StatusOr<double> Seconds(int rows, bool prompt, int depth, int few, int many, Ops ops) {
    double least = std::numeric_limits<double>::infinity(), base = least;
    constexpr int kWarm = 3, kTimed = 3;
    for (int i = 0; i < kWarm + kTimed; ++i) {
      MILLRACE_ASSIGN_OR_RETURN(const double a, Pass1(rows, prompt, depth, 0, few, ops));
      MILLRACE_ASSIGN_OR_RETURN(const double b, Pass1(rows, prompt, depth, 1, many, ops));
      if (i < kWarm) continue;
      base = std::min(base, a);
      least = std::min(least, b);
    }
    return std::max(1e-7, (least - base) / (many - few));
  }

  // Seconds of one of `ops` when the device has been at it for kLong: the mean of the last third.
  absl::StatusOr<double> SustainedSeconds(int rows, bool prompt, int many, double pass_seconds,
                                          Ops ops) {
    constexpr absl::Duration kLong = absl::Milliseconds(500);
    const absl::Time begin = absl::Now();
    double sum = 0;
    int counted = 0;
    for (;;) {
      const absl::Duration passed = absl::Now() - begin;
      MILLRACE_ASSIGN_OR_RETURN(const double pass, Pass1(rows, prompt, 0, 2, many, ops));
      if (passed * 3 < kLong * 2) continue;
      sum += pass - pass_seconds;
      ++counted;
      if (passed > kLong) return std::max(1e-7, sum / counted / many);
    }
  }

  // Of a pass with one of `ops`, all it takes.
  absl::StatusOr<double> PassSeconds(int rows, bool prompt, Ops ops) {
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < 3; ++i) {
      MILLRACE_ASSIGN_OR_RETURN(const double pass, Pass1(rows, prompt, 0, 0, 1, ops));
      least = std::min(least, pass);
    }
    return least;
  }

  // A pass of `rows` sequences with ops once, until the tokens are drawn.
  absl::StatusOr<double> WholePass(int rows, absl::FunctionRef<absl::Status()> ops) {
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < 6; ++i) {
      const Pass pass = PassOf(rows, false, kOtherDepth, rows);
      const absl::Time begin = absl::Now();
      MILLRACE_RETURN_IF_ERROR(Begin(pass));
      MILLRACE_RETURN_IF_ERROR(backend_->Run(ops, true));
      MILLRACE_RETURN_IF_ERROR(backend_->Collect(0, rows).status());
      least = std::min(least, absl::ToDoubleSeconds(absl::Now() - begin));
    }
    return least;
  }

 private:
  explicit Bench(ModelSpec spec) : spec_(std::move(spec)) {}

  // One row of each sequence, or all of one.
  static Pass PassOf(int rows, bool prompt, int depth, int outputs) {
    Pass pass;
    pass.tokens.assign(static_cast<size_t>(rows), 1);
    if (prompt) {
      pass.segments = {{0, depth, rows}};
    } else {
      for (int i = 0; i < rows; ++i) pass.segments.push_back({i, depth, 1});
    }
    for (int i = 0; i < outputs; ++i) {
      OutputRequest output;
      output.row = std::min(i, rows - 1);
      output.sampling.temperature = 0;
      pass.outputs.push_back(output);
    }
    return pass;
  }

  absl::Status Begin(const Pass& pass) {
    segments_.clear();
    positions_.clear();
    for (const PassSegment& s : pass.segments) {
      segments_.push_back(
          {s.slot, s.first_position, static_cast<int64_t>(positions_.size()), s.tokens});
      for (int i = 0; i < s.tokens; ++i) positions_.push_back(s.first_position + i);
    }
    const int64_t rows = static_cast<int64_t>(pass.tokens.size()), d = spec_.d_model;
    if (hidden_.size() < static_cast<size_t>(rows * d)) {
      std::mt19937 rng(5);
      hidden_.resize(static_cast<size_t>(rows * d));
      for (float& v : hidden_) v = static_cast<float>(rng() % 2000) / 1000.0f - 1.0f;
    }
    HiddenStates hidden;
    hidden.rows = FloatView(hidden_.data(), rows, d);
    return backend_->BeginPass(pass, segments_, positions_, hidden);
  }

  absl::StatusOr<double> Pass1(int rows, bool prompt, int depth, int outputs, int times, Ops ops) {
    const Pass pass = PassOf(rows, prompt, depth, outputs);
    const absl::Time begin = absl::Now();
    MILLRACE_RETURN_IF_ERROR(Begin(pass));
    const auto normed = [&]() -> absl::Status {
      const PassBuffers buffers = backend_->buffers();
      MILLRACE_RETURN_IF_ERROR(backend_->RmsNorm(buffers.hidden, norm_, buffers.normed));
      return ops(times);
    };
    MILLRACE_RETURN_IF_ERROR(backend_->Run(normed, true));
    MILLRACE_RETURN_IF_ERROR(backend_->ReadHidden().status());
    return absl::ToDoubleSeconds(absl::Now() - begin);
  }

  const ModelSpec spec_;
  std::unique_ptr<Backend> backend_;
  std::vector<float> norm_values_, hidden_;
  const float* norm_ = nullptr;
  std::vector<AttentionSegment> segments_;
  std::vector<int> positions_;
};

// ---- what is measured ----------------------------------------------------------------------------

// Passes long enough that the difference of two is well above what a pass takes by itself.
int TimesFor(Bytes weights, int tokens) {
  const double small = static_cast<double>(weights.count()) * (1 + tokens / 128.0);
  return std::clamp(static_cast<int>(3e9 / small), 3, 40);
}

absl::Status AddProducts(const TimingOptions& options, Shape shape, DType type, DeviceTimes& times) {
  const Bytes half = PlacedBytes(SpecOf(shape, type, 1, Part::kFeedForward));
  const int layers = std::clamp(static_cast<int>(kBeyondCaches.count() / half.count()) + 1, 1, 24);
  MILLRACE_ASSIGN_OR_RETURN(auto bench, Bench::Create(options, SpecOf(shape, type, layers, Part::kFeedForward),
                                                      64, kMostTokens, kMostTokens));
  const std::vector<TensorSpec>& t = bench->spec().tensors;
  const std::vector<std::byte> bytes = RandomBytes(type, t[0].size);
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
    MILLRACE_ASSIGN_OR_RETURN(const double lasting,
                              bench->SustainedSeconds(tokens, tokens > 64,
                                                      8 * TimesFor(weights, tokens), pass - seconds,
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
        made->bench_, Bench::Create(options, SpecOf(kShapes[1], kType, kLayers, Part::kAttention),
                                    kSlots, kContext, kContext));
    const std::vector<TensorSpec>& t = made->bench_->spec().tensors;
    const std::vector<std::byte> bytes = RandomBytes(kType, t[0].size);
    for (size_t l = 0; l < kLayers; ++l) {
      AttentionWeights half;
      MILLRACE_ASSIGN_OR_RETURN(
          half.qkv, made->bench_->Place({&t[4 * l], &t[4 * l + 1], &t[4 * l + 2]}, bytes));
      MILLRACE_ASSIGN_OR_RETURN(half.output, made->bench_->Place({&t[4 * l + 3]}, bytes));
      made->halves_.push_back(half);
    }
    // Two layers' caches are beyond any second-level cache where that matters.
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
        MILLRACE_RETURN_IF_ERROR(ForwardAttention(
            bench_->backend(), layer(), halves_[static_cast<size_t>(i % kLayers)],
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

  std::unique_ptr<Bench> bench_;
  std::vector<AttentionWeights> halves_;
  KvCache cache_;
};

// `products`: seconds of a feed-forward half of that many bytes and rows.
absl::Status AddAttention(const TimingOptions& options,
                          const std::function<double(int rows, double bytes)>& products,
                          DeviceTimes& times) {
  MILLRACE_ASSIGN_OR_RETURN(auto bench, AttentionBench::Create(options));
  const double per_token = static_cast<double>(KvBytesPerToken(bench->layer(), DType::kF16).count());
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
  // One slope for all: of few sequences the two depths differ by little more than what a launch varies by, and
  // long contexts were read at the others' rate.
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
  const double per_cell = std::max(1e-18, (lengthy / kLong - brief / kShort) /
                                              (cells(kLong) / kLong - cells(kShort) / kShort));
  times.prompt_row_seconds = std::max(0.0, brief - per_cell * cells(kShort)) / kShort;
  times.attention_flops = 4.0 * bench->layer().heads * bench->layer().head_dim / per_cell;
  return absl::OkStatus();
}

// What a pass takes beside its blocks: what it takes with a head only, less the head's product.
absl::Status AddPass(const TimingOptions& options,
                     const std::function<double(int rows, double bytes)>& products,
                     DeviceTimes& times) {
  constexpr int kRows = 16;
  MILLRACE_ASSIGN_OR_RETURN(auto bench,
                            Bench::Create(options, SpecOf(kShapes[0], DType::kQ4_K, 1, Part::kHead),
                                          kRows, kOtherDepth + 1, kRows));
  const TensorSpec& matrix = bench->spec().tensors[0];
  const std::vector<std::byte> bytes = RandomBytes(matrix.dtype, matrix.size);
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

// Of Q4_K weights, between the two measured sizes around `bytes`.
double ProductSeconds(const DeviceTimes& times, int rows, double bytes) {
  const ProductTime *below = nullptr, *above = nullptr;
  for (const ProductTime& p : times.products) {
    if (p.type != DType::kQ4_K || p.tokens != rows) continue;
    const double size = static_cast<double>(p.weights.count());
    if (size <= bytes || below == nullptr) below = &p;
    if (size > bytes && above == nullptr) above = &p;
  }
  if (below == nullptr) return 0;
  const double x = static_cast<double>(below->weights.count());
  if (above == nullptr || above == below) return below->seconds * bytes / x;
  const double share = (bytes - x) / (static_cast<double>(above->weights.count()) - x);
  return below->seconds + share * (above->seconds - below->seconds);
}

}  // namespace

absl::StatusOr<DeviceTimes> MeasureDeviceTimes(const TimingOptions& options) {
  DeviceTimes times;
  for (DType type : kTypes) {
    for (const Shape& shape : kShapes) {
      // Twice the weights: room for activations, and for dequantised weights where there are any.
      const Bytes half = PlacedBytes(SpecOf(shape, type, 1, Part::kFeedForward));
      if (std::max(half, kBeyondCaches) * 2 + 1_GiB > options.room) continue;
      MILLRACE_RETURN_IF_ERROR(AddProducts(options, shape, type, times));
    }
  }
  if (times.products.empty()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("timing ", options.device.value(), " needs more than ", FormatBytes(options.room)));
  }
  const auto products = [&](int rows, double bytes) { return ProductSeconds(times, rows, bytes); };
  MILLRACE_RETURN_IF_ERROR(AddAttention(options, products, times));
  MILLRACE_RETURN_IF_ERROR(AddPass(options, products, times));
  return times;
}

}  // namespace millrace
