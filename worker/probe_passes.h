// PassBench: times ops within passes of a device, as the runtime issues them.
#ifndef MILLRACE_WORKER_PROBE_PASSES_H_
#define MILLRACE_WORKER_PROBE_PASSES_H_

#include <algorithm>
#include <limits>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "proto/status_macros.h"
#include "worker/probe_model.h"
#include "worker/probe_times.h"

namespace millrace {

// Of passes that draw tokens: a device that records passes tells them apart by powers of two of the
// context.
inline constexpr int kProbeDrawDepth = 700;

// A device with a model's weights.
class PassBench {
 public:
  using Ops = absl::FunctionRef<absl::Status(int times)>;

  static absl::StatusOr<std::unique_ptr<PassBench>> Create(const TimingOptions& options,
                                                           ModelSpec spec, int slots, int context,
                                                           int max_tokens) {
    auto bench = std::unique_ptr<PassBench>(new PassBench(std::move(spec)));
    BackendOptions o;
    o.max_pass_tokens = max_tokens;
    o.slots = slots;
    o.context = context;
    o.last_stage = true;
    o.device = options.device;
    o.weights = ProbePlacedBytes(bench->spec_);
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
      tensors.push_back(
          {t, absl::MakeConstSpan(bytes).first(static_cast<size_t>(t->size.count()))});
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

  // Seconds of one of `ops`: a pass with many less one with few, which differ in the number of
  // outputs, so that a device that records passes has a record of each. `depth`: tokens in every
  // sequence's cache.
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
      const Pass pass = PassOf(rows, false, kProbeDrawDepth, rows);
      const absl::Time begin = absl::Now();
      MILLRACE_RETURN_IF_ERROR(Begin(pass));
      MILLRACE_RETURN_IF_ERROR(backend_->Run(ops, true));
      MILLRACE_RETURN_IF_ERROR(backend_->Collect(0, rows).status());
      least = std::min(least, absl::ToDoubleSeconds(absl::Now() - begin));
    }
    return least;
  }

 private:
  explicit PassBench(ModelSpec spec) : spec_(std::move(spec)) {}

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

}  // namespace millrace

#endif  // MILLRACE_WORKER_PROBE_PASSES_H_
