// SimBackend: a GPU that is not there. Numbers come from the CPU's kernels, time from a virtual
// clock, and streamed weights really go through a WeightStream: products read the bytes that lie in
// the ring at the place and the moment that the leases give, half of them when the product begins
// and half when it ends. A wrong lease, bytes overwritten too early or a wait that is missing make
// wrong logits.
//
// Work is queued as on a GPU and done when the clock gets there: ops return at once, and the clock
// moves only where the host waits (ReadHidden, Collect, BeginPass) or the CPU computes. Products
// take the time of reading their weights or of their arithmetic, whichever is longer; other ops and
// hops of hidden states take none. The CPU reads a feed-forward block at `dram`, and copies beside
// it go on at `link`: what both together take from host memory is not modelled.
//
// Repeatable to the nanosecond with Drive::kCaller; with kThread bytes and logits are, times are
// not.
#ifndef MILLRACE_TESTS_FAKES_SIM_BACKEND_H_
#define MILLRACE_TESTS_FAKES_SIM_BACKEND_H_

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/backend/backend.h"
#include "worker/stage_runner.h"
#include "worker/stream/sim_stream_device.h"
#include "worker/stream/weight_stream.h"

namespace millrace {

struct SimBackendSpec {
  Bandwidth hbm = Bandwidth::GBPerSecond(1000);  // weights read by products
  Bandwidth link = Bandwidth::GBPerSecond(50);
  Bandwidth place = Bandwidth::GBPerSecond(1e6);  // from a stage on the device into the ring
  Bandwidth dram;                                 // read by the CPU; 0: its blocks take no time
  double flops = 0;                               // of products; 0: no limit
  Bytes chunk = 64_KiB;
  int stages = 4;
  int slots = 64;
  int max_queued_copies = 1 << 20;
  WeightStreamOptions::Drive drive = WeightStreamOptions::Drive::kCaller;
  // Where streamed weights come from; empty: from the stage's host memory, at once.
  std::function<std::unique_ptr<ChunkSource>(SimStreamDevice& device)> make_source;
};

class SimBackend : public Backend {
 public:
  static absl::StatusOr<std::unique_ptr<SimBackend>> Create(const ModelSpec& model,
                                                            const BackendOptions& options,
                                                            const SimBackendSpec& spec);

  // ---- for whoever plays the host ----
  SimStreamDevice& device() { return *device_; }
  WeightStream* stream() { return stream_.get(); }  // null without groups
  absl::Duration elapsed() const { return device_->Now() - absl::UnixEpoch(); }
  // The host waits until then.
  void RunUntil(absl::Time time);
  absl::Duration ProductTime(WeightsId weights, int64_t rows) const;
  absl::Duration HostBlockTime() const;

  Bytes activation_bytes() const override { return cpu_->activation_bytes(); }
  int max_head_rows() const override { return cpu_->max_head_rows(); }
  absl::StatusOr<WeightsId> PlaceMatrices(absl::Span<const HostTensor> matrices,
                                          absl::Span<const HostTensor> biases) override;
  absl::StatusOr<WeightsId> StreamMatrices(absl::Span<const HostTensor> matrices,
                                           absl::Span<const HostTensor> biases) override;
  absl::StatusOr<const float*> PlaceVector(const HostTensor& vector) override {
    return cpu_->PlaceVector(vector);
  }
  absl::Status PlaceEmbedding(const HostTensor& table) override {
    return cpu_->PlaceEmbedding(table);
  }
  // Freeing it waits for what is queued, as a GPU's driver does.
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(Bytes size, const char* what) override;
  absl::Status FinishLoading() override;

  absl::Status BeginPass(const Pass& pass, absl::Span<const AttentionSegment> segments,
                         absl::Span<const int> positions, const HiddenStates& hidden) override;
  PassBuffers buffers() const override { return cpu_->buffers(); }
  absl::Status Expect(absl::Span<const WeightsId> order, WeightsId head, int heads) override;
  absl::Status Run(absl::FunctionRef<absl::Status()> ops, bool repeat) override { return ops(); }
  absl::Status Embed(FloatView out) override;
  absl::Status RmsNorm(FloatView hidden, const float* weight, const Activations& normed) override;
  absl::Status Matmul(const Activations& x, WeightsId weights, FloatView out) override;
  absl::Status AddMatmul(const Activations& x, WeightsId weights, FloatView hidden,
                         const float* next_norm, const Activations& normed) override;
  absl::Status Attention(FloatView qkv, const LayerSpec& layer, const float* q_norm,
                         const float* k_norm, const KvView& cache, const Activations& q,
                         const Activations& out) override;
  absl::Status GatedMatmul(const Activations& x, WeightsId weights, FloatView gate_up,
                           const Activations& out) override;
  absl::Status Head(const float* norm, WeightsId head, int first, int count) override;
  absl::StatusOr<std::vector<RowOutput>> Collect(int first, int count) override;
  std::optional<StreamStats> TakeCopies(std::vector<BusySpan>& spans) override;
  absl::StatusOr<FloatView> ReadHidden() override;
  absl::StatusOr<FloatView> HostRows(int64_t n) override;
  absl::Status WriteHidden() override;
  absl::Status SendHidden() override;
  absl::StatusOr<FloatView> AwaitHidden() override;
  absl::StatusOr<FloatView> PartRows() override;
  absl::Status AddPart() override;

 private:
  class Memory;
  using Op = std::function<absl::Status()>;
  // A group in the ring: its matrices as in the file, each from a multiple of 256 bytes on.
  struct Streamed {
    int index = -1;  // of the stream
    std::vector<HostTensor> matrices;
    std::vector<std::byte> registers;  // what the product that runs has read of the ring
  };

  SimBackend(const ModelSpec& model, const BackendOptions& options, const SimBackendSpec& spec,
             std::unique_ptr<Backend> cpu);
  StreamGroup GroupOf(const Streamed& streamed) const;
  // Work without weights.
  void Queue(Op op);
  // A product of `rows` rows.
  absl::Status Queue(WeightsId weights, int64_t rows, Op op);
  std::vector<StreamChunk> ChunksOf(const HostTensor& matrix) const;
  static void Read(Streamed& streamed, absl::Span<const std::byte> group, bool odd_lines);
  static bool IsWhole(const Streamed& streamed);
  absl::Status Synchronize();
  FloatView RowsOfHost(int64_t n);
  void QueueRowsFromHost();
  void CopyRows(FloatView from, FloatView to) const;

  const ModelSpec& model_;
  const BackendOptions options_;
  const SimBackendSpec spec_;
  Bytes mean_feed_forward_;
  std::unique_ptr<Backend> cpu_;
  std::vector<Bytes> group_bytes_;    // by WeightsId
  std::map<int, Streamed> streamed_;  // by WeightsId
  std::vector<float> host_rows_;      // what copies of hidden states read and write
  std::vector<float> part_rows_;      // what the host adds to them
  absl::Time hidden_sent_;            // when the copy last queued is made
  Bytes device_part_;                 // weights of products queued since then
  absl::Status failure_;              // of work that was queued
  // Of the pass begun; the caller's may be gone before the work is done.
  Pass pass_;
  std::vector<AttentionSegment> segments_;
  std::vector<int> positions_;
  std::unique_ptr<SimStreamDevice> device_;
  std::unique_ptr<ChunkSource> source_;
  std::unique_ptr<WeightStream> stream_;  // last: dies first
};

// A factory for StageOptions. `made`, where not null, gets every backend made; they belong to their
// stages.
BackendFactory SimBackends(const SimBackendSpec& spec, std::vector<SimBackend*>* made = nullptr);

}  // namespace millrace

#endif  // MILLRACE_TESTS_FAKES_SIM_BACKEND_H_
