#include "worker/stage_runner.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/thread_pool.h"
#include "proto/status_macros.h"
#include "proto/stored_types.h"
#include "worker/backend/backend.h"
#include "worker/backend/cuda/cuda_backend.h"
#include "worker/backend/cuda/gpu_memory.h"
#include "worker/backend/cuda/gpu_name.h"
#include "worker/decoder_block.h"
#include "worker/host_route.h"
#include "worker/kv_cache.h"
#include "worker/stage_blocks.h"
#include "worker/stream/disk_reader.h"
#include "worker/stream/host_weights.h"
#include "worker/weights/converted_tensors.h"

namespace millrace {
namespace {

// A plan that does not list its blocks keeps them on their stages' devices.
BlockPlacement PlacementOf(const PlacementPlan& plan, int block) {
  const auto b = static_cast<size_t>(block);
  return b < plan.blocks.size() ? plan.blocks[b] : BlockPlacement();
}

// What the plan's host budget leaves for weights beside a worker's GPUs, at least a byte; 0 = the plan
// names none.
Bytes HostWeightBudget(const PlacementPlan& plan, const WorkerId& worker) {
  Bytes budget;
  bool named = false;
  for (const LedgerTotal& t : plan.totals) {
    if (t.worker != worker || t.memory != "host") continue;
    budget = t.budget;
    named = true;
  }
  if (!named) return Bytes(0);
  for (const LedgerEntry& e : plan.ledger) {
    const bool here = e.worker == worker && e.memory == "host";
    if (here && e.purpose != Purpose::kWeights) budget -= e.bytes;
  }
  return std::max(budget, Bytes(1));
}

class Runner : public StageRunner {
 public:
  Runner(std::unique_ptr<ConvertedTensors> converted, const PlacementPlan& plan, int stage,
         std::unique_ptr<StageLink> next)
      : converted_(std::move(converted)),
        model_(converted_->model()),
        stage_(stage),
        epoch_(plan.epoch),
        slots_(plan.slots),
        context_(plan.context),
        max_pass_tokens_(plan.max_pass_tokens),
        next_(std::move(next)) {}

  absl::Status Load(const PlacementPlan& plan, const StageOptions& options);

  absl::StatusOr<PassResult> Run(const Pass& pass, const HiddenStates& hidden,
                                 absl::Time deadline) override;
  void Cancel() override {
    if (next_) next_->Cancel();
  }
  bool takes_device_rows() const override { return backend_->takes_device_rows(); }
  int stage() const override { return stage_; }
  Bytes resident_bytes() const override {
    // Beside a GPU, host memory is the host's.
    const Bytes weights =
        device_weight_bytes_ > Bytes(0) ? device_weight_bytes_ : host_weight_bytes_;
    return weights + kv_.size() + (backend_ ? backend_->activation_bytes() : Bytes(0));
  }

 private:
  bool first() const { return first_; }
  bool last() const { return next_ == nullptr; }

  absl::Status MakeHostRoute(const PlacementPlan& plan, const StageOptions& options);
  absl::Status PlaceBlock(const Block& block, const BlockPlacement& placement);
  absl::Status PlaceHead(Home home);
  absl::Status ConvertAndPlace(const Block& block, const BlockPlacement& placement);
  absl::Status HoldHostWeights(const PlacementPlan& plan, const std::vector<Block>& blocks,
                               const StageOptions& options);
  Bytes DeviceWeightBytes(const PlacementPlan& plan, const std::vector<Block>& blocks) const;
  absl::Status MakeBackend(const PlacementPlan& plan, const StageOptions& options);
  absl::Status CheckPass(const Pass& pass, FloatView hidden) const;
  absl::Status Begin(const Pass& pass, const HiddenStates& hidden);
  absl::Status Forward(const Pass& pass);
  absl::Status Head(const Pass& pass, int first);
  absl::StatusOr<PassResult> Outputs(const Pass& pass);
  void AddUse(PassResult& result);
  absl::StatusOr<PassResult> HandOn(const Pass& pass, absl::Time begin, absl::Time deadline);

  std::unique_ptr<ConvertedTensors> converted_;
  std::shared_ptr<const Model> model_;  // as it is held
  const int stage_;
  const Epoch epoch_;
  const int slots_, context_, max_pass_tokens_;
  std::unique_ptr<StageLink> next_;
  std::unique_ptr<HostWeights> host_weights_;  // null: none
  TensorSlices slices_{TensorSlices::Use::kDevice};  // dies after the backend
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<HostRoute> host_;     // null: nothing for the CPU to do beside a GPU
  std::optional<StageBlocks> blocks_;
  bool first_ = false, embed_on_host_ = false, head_streams_ = false;
  WeightsId head_;
  const float* output_norm_ = nullptr;
  KvCache kv_;
  std::set<int> host_tensors_;  // of blocks that are not homed on a GPU
  Bytes host_weight_bytes_, device_weight_bytes_;
  // Of the pass under way.
  std::vector<AttentionSegment> segments_;
  std::vector<int> positions_;
};

absl::Status Runner::PlaceBlock(const Block& block, const BlockPlacement& placement) {
  switch (block.kind) {
    case BlockKind::kEmbedding:
      first_ = true;
      embed_on_host_ = host_ != nullptr && placement.home != Home::kDevice;
      return embed_on_host_
                 ? host_->PlaceEmbedding()
                 : backend_->PlaceEmbedding(TensorOf(*model_, TensorRole::kTokenEmbedding));
    case BlockKind::kHead:
      return PlaceHead(placement.home);
    case BlockKind::kAttention:
    case BlockKind::kFeedForward:
      return blocks_->Place(block, placement);
  }
  return absl::OkStatus();
}

// Converted tensors that only a device holds take host memory one block at a time.
absl::Status Runner::ConvertAndPlace(const Block& block, const BlockPlacement& placement) {
  MILLRACE_RETURN_IF_ERROR(converted_->Convert(block.tensors, nullptr));
  MILLRACE_RETURN_IF_ERROR(PlaceBlock(block, placement));
  if (!backend_->copies_weights()) return absl::OkStatus();
  std::vector<int> placed = block.tensors;
  std::erase_if(placed, [&](int t) { return host_tensors_.contains(t); });
  converted_->Drop(placed);
  return absl::OkStatus();
}

absl::Status Runner::PlaceHead(Home home) {
  const TensorRole role =
      model_->spec().tied_output ? TensorRole::kTokenEmbedding : TensorRole::kOutput;
  const HostTensor matrix = TensorOf(*model_, role);
  head_streams_ = home != Home::kDevice;
  if (head_streams_) {
    MILLRACE_ASSIGN_OR_RETURN(head_, backend_->StreamMatrices({matrix}, {}));
  } else {
    MILLRACE_ASSIGN_OR_RETURN(head_, backend_->PlaceMatrices({matrix}, {}));
  }
  MILLRACE_ASSIGN_OR_RETURN(output_norm_,
                            backend_->PlaceVector(TensorOf(*model_, TensorRole::kOutputNorm)));
  return absl::OkStatus();
}

// What the CPU does beside the stage's GPU: feed-forward blocks or parts of them up to some pass size, the embedding.
absl::Status Runner::MakeHostRoute(const PlacementPlan& plan, const StageOptions& options) {
  int most = -1;
  for (const BlockPlacement& b : plan.blocks) {
    if (b.stage != stage_ || b.home == Home::kDevice) continue;
    const int tokens = CpuWorkOf(b).LargestPass(max_pass_tokens_);
    if (tokens > 0 || b.block == 0) most = std::max(most, tokens);
  }
  if (most < 0) return absl::OkStatus();
  // One is left to the thread that queues copies and the one that feeds the GPU.
  const int threads = options.threads > 0 ? options.threads : std::max(1, UsableThreads() - 1);
  MILLRACE_ASSIGN_OR_RETURN(
      host_, HostRoute::Create(*model_, most, threads));
  return absl::OkStatus();
}

// Brings in, and beside a GPU locks, the weights that stay in host memory.
absl::Status Runner::HoldHostWeights(const PlacementPlan& plan, const std::vector<Block>& blocks,
                                     const StageOptions& options) {
  const Stage& stage = plan.stages[stage_];
  const bool gpu = stage.device_kind == DeviceKind::kGpu;
  std::set<int>& tensors = host_tensors_;
  std::set<int> in_memory;
  for (int b = stage.first_block; b < stage.end_block; ++b) {
    const Home home = PlacementOf(plan, b).home;
    if (gpu && home == Home::kDevice) continue;
    tensors.insert(blocks[b].tensors.begin(), blocks[b].tensors.end());
    if (home != Home::kDisk) in_memory.insert(blocks[b].tensors.begin(), blocks[b].tensors.end());
  }
  if (tensors.empty()) return absl::OkStatus();
  for (int t : in_memory) host_weight_bytes_ += model_->spec().tensors[t].size;
  Bytes made;
  MILLRACE_RETURN_IF_ERROR(converted_->Convert({tensors.begin(), tensors.end()}, [&](Bytes bytes) {
    made += bytes;
    if (!options.on_load_progress) return;
    options.on_load_progress(made, host_weight_bytes_ + device_weight_bytes_);
  }));
  std::vector<HostWeight> weights;
  for (int t : tensors) {
    HostWeight weight;
    weight.tensor = {&model_->spec().tensors[t], model_->TensorBytes(t)};
    weight.path = model_->PathOf(t);
    weight.offset = weight.tensor.spec->offset;
    weight.on_disk = !in_memory.contains(t);
    if (weight.on_disk && weight.tensor.spec->file_dtype) {
      return absl::FailedPreconditionError(absl::StrCat(
          "tensor ", weight.tensor.spec->name, " is to stay on disk and to be held as ",
          DTypeName(weight.tensor.spec->dtype), ", which no file has: plan again"));
    }
    weights.push_back(std::move(weight));
  }
  HostWeightsOptions o;
  if (gpu) o.memory_budget = HostWeightBudget(plan, stage.worker);
  // The ledger has the buffers for reading among the activations.
  const bool disk = in_memory.size() < tensors.size();
  if (disk && o.memory_budget > Bytes(0)) o.memory_budget += DiskReader::MemoryFor(o.disk);
  if (gpu && !options.make_gpu_backend) {
    MILLRACE_ASSIGN_OR_RETURN(const int device, HardwareIndex(stage.device));
    o.lock = CudaPageLocker(device);
  }
  if (options.on_load_progress) {
    o.progress = [&](Bytes done, Bytes all) {
      options.on_load_progress(std::max(done, made), all + device_weight_bytes_);
    };
  }
  MILLRACE_ASSIGN_OR_RETURN(host_weights_, HostWeights::Create(o, std::move(weights)));
  return absl::OkStatus();
}

// What the stage's GPU holds: all of a block that is homed there, the vectors of others.
Bytes Runner::DeviceWeightBytes(const PlacementPlan& plan, const std::vector<Block>& blocks) const {
  const Stage& stage = plan.stages[stage_];
  Bytes bytes;
  for (int b = stage.first_block; b < stage.end_block; ++b) {
    const bool lookup = blocks[b].kind == BlockKind::kEmbedding;
    const bool here = PlacementOf(plan, b).home == Home::kDevice;
    for (int t : blocks[b].tensors) {
      const TensorSpec& tensor = model_->spec().tensors[t];
      if (here || tensor.shape.size() != 2) bytes += CudaPlacedBytes(tensor, lookup);
    }
  }
  return bytes;
}

absl::Status Runner::MakeBackend(const PlacementPlan& plan, const StageOptions& options) {
  const Stage& stage = plan.stages[stage_];
  BackendOptions o;
  o.max_pass_tokens = max_pass_tokens_;
  o.slots = slots_;
  o.context = context_;
  o.last_stage = last();
  o.threads = options.threads;
  o.device = stage.device;
  if (stage.device_kind == DeviceKind::kCpu) {
    MILLRACE_ASSIGN_OR_RETURN(backend_, MakeCpuBackend(model_->spec(), o));
    return absl::OkStatus();
  }
  o.weights = device_weight_bytes_;
  o.stream_source = host_weights_.get();
  o.stream_ring = stage.stream_ring;
  for (const LedgerTotal& t : plan.totals) {
    if (t.worker == stage.worker && t.memory == stage.device.value()) o.budget = t.budget;
  }
  for (const LedgerEntry& e : plan.ledger) {
    const bool here = e.worker == stage.worker && e.memory == stage.device.value();
    if (here && e.purpose == Purpose::kOverhead) o.overhead = e.bytes;
  }
  const BackendFactory make = options.make_gpu_backend ? options.make_gpu_backend : MakeCudaBackend;
  MILLRACE_ASSIGN_OR_RETURN(backend_, make(model_->spec(), o));
  return absl::OkStatus();
}

absl::Status Runner::Load(const PlacementPlan& plan, const StageOptions& options) {
  const ModelSpec& spec = model_->spec();
  const Stage& stage = plan.stages[stage_];
  const bool gpu = stage.device_kind == DeviceKind::kGpu;
  const std::vector<Block> blocks = BlocksOf(spec);
  if (gpu) device_weight_bytes_ = DeviceWeightBytes(plan, blocks);
  MILLRACE_RETURN_IF_ERROR(HoldHostWeights(plan, blocks, options));
  MILLRACE_RETURN_IF_ERROR(MakeBackend(plan, options));
  if (gpu) MILLRACE_RETURN_IF_ERROR(MakeHostRoute(plan, options));
  blocks_.emplace(*model_, max_pass_tokens_, backend_.get(), host_.get(), &slices_);
  std::vector<int> attention_layers, on_host;  // by where their caches lie
  for (int b = stage.first_block; b < stage.end_block; ++b) {
    MILLRACE_RETURN_IF_ERROR(ConvertAndPlace(blocks[b], PlacementOf(plan, b)));
    if (blocks[b].kind == BlockKind::kAttention) {
      const bool host = gpu && PlacementOf(plan, b).kv_home == Home::kHost;
      (host ? on_host : attention_layers).push_back(blocks[b].layer);
    }
    if (gpu && options.on_load_progress) {
      const int64_t done = device_weight_bytes_.count() / (stage.end_block - stage.first_block) *
                           (b + 1 - stage.first_block);
      options.on_load_progress(host_weight_bytes_ + Bytes(done),
                               host_weight_bytes_ + device_weight_bytes_);
    }
  }
  converted_->Finish();
  const KvShape kv{plan.slots, plan.context, plan.kv_type};
  MILLRACE_ASSIGN_OR_RETURN(kv_, KvCache::Create(*backend_, spec, attention_layers, on_host, kv));
  MILLRACE_RETURN_IF_ERROR(backend_->FinishLoading());
  if (options.memory_budget > Bytes(0) && resident_bytes() > options.memory_budget) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "stage ", stage_, " takes ", FormatBytes(resident_bytes()), " but its budget is ",
        FormatBytes(options.memory_budget), ": plan again with what is free now"));
  }
  return absl::OkStatus();
}

absl::Status Runner::CheckPass(const Pass& pass, FloatView hidden) const {
  const int64_t n = static_cast<int64_t>(pass.tokens.size());
  auto bad = [&](auto... parts) {
    return absl::InvalidArgumentError(absl::StrCat("pass ", pass.id, ": ", parts...));
  };
  if (pass.epoch != epoch_) {
    return absl::FailedPreconditionError(
        absl::StrCat("pass ", pass.id, " belongs to epoch ", pass.epoch.value, ", stage ", stage_,
                     " runs epoch ", epoch_.value));
  }
  if (n == 0 || n > max_pass_tokens_) return bad(n, " tokens, 1 to ", max_pass_tokens_, " allowed");
  for (TokenId t : pass.tokens) {
    if (t < 0 || t >= model_->spec().vocab) {
      return bad("token ", t, " is outside the vocabulary of ", model_->spec().vocab);
    }
  }
  int64_t rows = 0;
  for (const PassSegment& s : pass.segments) {
    if (s.slot < 0 || s.slot >= slots_) return bad("slot ", s.slot, " of ", slots_);
    if (s.tokens <= 0 || s.first_position < 0 || s.first_position > context_ - s.tokens) {
      return bad("positions ", s.first_position, " to ", s.first_position + s.tokens,
                 " do not fit the context of ", context_);
    }
    rows += s.tokens;
  }
  if (rows != n) return bad("segments cover ", rows, " rows of ", n);
  for (const OutputRequest& o : pass.outputs) {
    if (o.row < 0 || o.row >= n) return bad("output row ", o.row, " of ", n);
    if (o.kind == OutputRequest::Kind::kLogProb &&
        (o.target < 0 || o.target >= model_->spec().vocab)) {
      return bad("target token ", o.target, " is outside the vocabulary");
    }
  }
  if (!first() && (hidden.rows != n || hidden.cols != model_->spec().d_model)) {
    return bad("hidden states are [", hidden.rows, ", ", hidden.cols, "], [", n, ", ",
               model_->spec().d_model, "] expected");
  }
  return absl::OkStatus();
}

absl::Status Runner::Begin(const Pass& pass, const HiddenStates& hidden) {
  segments_.clear();
  positions_.clear();
  for (const PassSegment& s : pass.segments) {
    segments_.push_back(
        {s.slot, s.first_position, static_cast<int64_t>(positions_.size()), s.tokens});
    for (int i = 0; i < s.tokens; ++i) positions_.push_back(s.first_position + i);
  }
  HiddenStates rows = hidden;
  if (embed_on_host_) {
    MILLRACE_ASSIGN_OR_RETURN(rows.rows,
                              backend_->HostRows(static_cast<int64_t>(pass.tokens.size())));
    MILLRACE_RETURN_IF_ERROR(host_->Embed(pass, rows.rows));
  }
  MILLRACE_RETURN_IF_ERROR(backend_->BeginPass(pass, segments_, positions_, rows));
  const int outputs = static_cast<int>(pass.outputs.size()), most = backend_->max_head_rows();
  return backend_->Expect(blocks_->Order(static_cast<int>(pass.tokens.size())), head_,
                          last() ? (outputs + most - 1) / most : 0);
}

// The blocks in order; on the last stage the first outputs too, so that a device may replay it all.
absl::Status Runner::Forward(const Pass& pass) {
  const PassBuffers buffers = backend_->buffers();
  if (first() && !embed_on_host_) MILLRACE_RETURN_IF_ERROR(backend_->Embed(buffers.hidden));
  MILLRACE_RETURN_IF_ERROR(blocks_->Forward(pass, kv_, buffers));
  return last() ? Head(pass, 0) : absl::OkStatus();
}

// As many outputs from `first` on as the backend takes at a time.
absl::Status Runner::Head(const Pass& pass, int first) {
  const int count =
      std::min(backend_->max_head_rows(), static_cast<int>(pass.outputs.size()) - first);
  return count > 0 ? backend_->Head(output_norm_, head_, first, count) : absl::OkStatus();
}

absl::StatusOr<PassResult> Runner::Outputs(const Pass& pass) {
  PassResult result;
  result.id = pass.id;
  const int outputs = static_cast<int>(pass.outputs.size());
  for (int begin = 0; begin < outputs; begin += backend_->max_head_rows()) {
    if (begin > 0) MILLRACE_RETURN_IF_ERROR(Head(pass, begin));
    const int count = std::min(backend_->max_head_rows(), outputs - begin);
    MILLRACE_ASSIGN_OR_RETURN(std::vector<RowOutput> rows, backend_->Collect(begin, count));
    for (RowOutput& row : rows) result.outputs.push_back(std::move(row));
  }
  return result;
}

// What this stage's resources did; nothing where all weights are on its device.
void Runner::AddUse(PassResult& result) {
  if (blocks_->Resident() && !head_streams_) return;
  std::vector<BusySpan> spans = blocks_->TakeSpans();
  const std::optional<StreamStats> stats = backend_->TakeCopies(spans);
  for (BusySpan& span : spans) {
    span.stage = stage_;
    result.use.spans.push_back(std::move(span));
  }
  if (stats) result.use.copies.push_back({stage_, *stats});
}

// Gives the pass to the next stage and puts this stage's time before those that follow.
absl::StatusOr<PassResult> Runner::HandOn(const Pass& pass, absl::Time begin, absl::Time deadline) {
  const bool share = backend_->takes_device_rows() && next_->takes_device_rows();
  HiddenStates out;
  if (share) {
    MILLRACE_ASSIGN_OR_RETURN(out, backend_->ShareHidden());
  } else {
    MILLRACE_ASSIGN_OR_RETURN(out, backend_->ReadHidden());
  }
  const absl::Duration queued = absl::Now() - begin;
  absl::StatusOr<PassResult> result = next_->Forward(pass, out, deadline);
  if (!result.ok()) return result;
  absl::Duration compute = queued;
  if (share) compute = std::max(queued, backend_->shared_pass_time());
  // The next stage's clock began while this one's device was still computing.
  if (!result->stage_compute.empty()) {
    absl::Duration& next = result->stage_compute.front();
    next -= std::min(next, compute - queued);
  }
  result->stage_compute.insert(result->stage_compute.begin(), compute);
  AddUse(*result);
  return result;
}

absl::StatusOr<PassResult> Runner::Run(const Pass& pass, const HiddenStates& hidden,
                                       absl::Time deadline) {
  MILLRACE_RETURN_IF_ERROR(CheckPass(pass, hidden.rows));
  const absl::Time begin = absl::Now();
  const absl::Status begun = Begin(pass, hidden);
  if (hidden.taken) hidden.taken();
  MILLRACE_RETURN_IF_ERROR(begun);
  MILLRACE_RETURN_IF_ERROR(
      backend_->Run([&] { return Forward(pass); }, blocks_->Resident() && !head_streams_));
  if (!last()) return HandOn(pass, begin, deadline);
  absl::StatusOr<PassResult> result = Outputs(pass);
  if (!result.ok()) return result;
  result->stage_compute.push_back(absl::Now() - begin);
  AddUse(*result);
  return result;
}

absl::Status CheckPlan(const Model& model, const PlacementPlan& plan, int stage, bool has_next) {
  const std::string fingerprint = FingerprintOf(model.spec());
  if (plan.model_fingerprint != fingerprint) {
    return absl::FailedPreconditionError(
        absl::StrCat("the plan was made for model ", plan.model, " (fingerprint ",
                     plan.model_fingerprint, ") but ", model.reference(), " has fingerprint ",
                     fingerprint, ": plan again"));
  }
  if (stage < 0 || stage >= static_cast<int>(plan.stages.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("stage ", stage, " of a plan with ", plan.stages.size()));
  }
  const int blocks = static_cast<int>(2 * model.spec().layers.size() + 2);
  int at = 0;
  for (const Stage& s : plan.stages) {
    if (s.first_block != at || s.end_block <= at || s.end_block > blocks) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the plan's stages do not cover the model's ", blocks, " blocks in order"));
    }
    at = s.end_block;
  }
  if (at != blocks) {
    return absl::InvalidArgumentError(
        absl::StrCat("the plan's stages end at block ", at, " of ", blocks));
  }
  if (!plan.blocks.empty() && static_cast<int>(plan.blocks.size()) != blocks) {
    return absl::InvalidArgumentError(absl::StrCat("the plan places ", plan.blocks.size(),
                                                   " blocks, the model has ", blocks));
  }
  for (size_t b = 0; b < plan.blocks.size(); ++b) {
    if (plan.blocks[b].block != static_cast<int>(b)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the plan's blocks are not in order at ", plan.blocks[b].name));
    }
  }
  if (plan.context < 1 || plan.slots < 1 || plan.max_pass_tokens < 1) {
    return absl::InvalidArgumentError("the plan's context, slots or max_pass_tokens is below 1");
  }
  const bool last = stage + 1 == static_cast<int>(plan.stages.size());
  if (last == has_next) {
    return absl::InvalidArgumentError(absl::StrCat("stage ", stage, last ? " is the last and" : "",
                                                   " was given ", has_next ? "a" : "no", " link"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<StageRunner>> StageRunner::Create(std::shared_ptr<const Model> model,
                                                                 const PlacementPlan& plan,
                                                                 int stage,
                                                                 std::unique_ptr<StageLink> next,
                                                                 const StageOptions& options) {
  MILLRACE_RETURN_IF_ERROR(CheckPlan(*model, plan, stage, next != nullptr));
  const int threads = options.threads > 0 ? options.threads : UsableThreads();
  MILLRACE_ASSIGN_OR_RETURN(
      auto converted, ConvertedTensors::Create(std::move(model), StoredTypesOf(plan), threads));
  auto runner = std::make_unique<Runner>(std::move(converted), plan, stage, std::move(next));
  MILLRACE_RETURN_IF_ERROR(runner->Load(plan, options));
  return runner;
}

}  // namespace millrace
