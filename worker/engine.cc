#include "worker/engine.h"

#include <algorithm>
#include <deque>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "proto/status_macros.h"
#include "worker/batch_scheduler.h"
#include "worker/sampler.h"
#include "worker/session.h"

namespace millrace {

absl::string_view FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEndOfGeneration: return "end_of_generation";
    case FinishReason::kMaxTokens: return "max_tokens";
    case FinishReason::kStopString: return "stop_string";
    case FinishReason::kContextFull: return "context_full";
    case FinishReason::kCancelled: return "cancelled";
  }
  return "?";
}

class Engine::Impl {
 public:
  Impl(std::shared_ptr<const Model> model, std::unique_ptr<const Tokenizer> tokenizer,
       std::unique_ptr<StageRunner> first, const EngineOptions& options)
      : options_(options),
        model_(std::move(model)),
        tokenizer_(std::move(tokenizer)),
        first_(std::move(first)),
        scheduler_(options, tokenizer_.get()),
        thread_([this] { Loop(); }) {}

  ~Impl() { Stop(); }

  // Queues the session, waits until it is done, returns its status.
  absl::Status RunSession(const std::shared_ptr<Session>& session);
  absl::StatusOr<std::vector<TokenId>> PromptTokens(const GenerateRequest& request) const;
  absl::Status CheckTokens(const std::vector<TokenId>& tokens) const;
  RequestId MakeId();
  bool Cancel(const RequestId& id);
  EngineStats Stats() const;
  void Stop();

  const EngineOptions& options() const { return options_; }
  const Model& model() const { return *model_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  void Loop();
  bool NextBatch(Pass& pass);
  void Complete(const Pass& pass, absl::StatusOr<PassResult> result);
  void CountPass(const Pass& pass, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Notify(const std::vector<std::shared_ptr<Session>>& sessions) {
    for (const auto& s : sessions) s->done.Notify();
  }

  const EngineOptions options_;
  const std::shared_ptr<const Model> model_;
  const std::unique_ptr<const Tokenizer> tokenizer_;
  const std::unique_ptr<StageRunner> first_;  // used by thread_ only; Cancel by anyone

  mutable absl::Mutex mutex_;
  BatchScheduler scheduler_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 0;
  EngineStats totals_ ABSL_GUARDED_BY(mutex_);
  // Passes of the last seconds: when, and how many tokens they decoded.
  std::deque<std::pair<absl::Time, int>> recent_ ABSL_GUARDED_BY(mutex_);
  absl::Mutex stop_mutex_;  // one Stop at a time
  uint64_t pass_id_ = 0;    // thread_ only
  std::thread thread_;
};

// The engine on one screen: next batch, run, complete.
void Engine::Impl::Loop() {
  Pass pass;
  while (NextBatch(pass)) {
    if (pass.tokens.empty()) continue;
    pass.id = ++pass_id_;
    const absl::Time begin = absl::Now();
    absl::StatusOr<PassResult> result =
        first_->Run(pass, FloatView(), begin + options_.pass_timeout);
    if (result.ok() && options_.on_pass) {
      options_.on_pass({pass.id, begin, absl::Now(), static_cast<int>(pass.tokens.size()),
                        static_cast<int>(pass.segments.size()), result->stage_compute, result->use});
    }
    Complete(pass, std::move(result));
  }
}

// Waits for work. False: the engine stops.
bool Engine::Impl::NextBatch(Pass& pass) {
  std::vector<std::shared_ptr<Session>> cancelled;
  {
    absl::MutexLock lock(&mutex_);
    auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return stopping_ || !scheduler_.idle();
    };
    mutex_.Await(absl::Condition(&ready));
    if (stopping_) return false;
    if (!scheduler_.NextBatch(absl::Now(), pass)) pass.tokens.clear();
    cancelled = scheduler_.TakeCancelled();
  }
  Notify(cancelled);
  return true;
}

void Engine::Impl::Complete(const Pass& pass, absl::StatusOr<PassResult> result) {
  std::vector<std::shared_ptr<Session>> finished;
  {
    absl::MutexLock lock(&mutex_);
    const absl::Time now = absl::Now();
    if (result.ok()) {
      CountPass(pass, now);
      finished = scheduler_.Complete(pass, *std::move(result), now);
    } else {
      finished = scheduler_.Fail(result.status());
    }
  }
  Notify(finished);
}

void Engine::Impl::CountPass(const Pass& pass, absl::Time now) {
  int decoded = 0;
  for (const OutputRequest& o : pass.outputs) decoded += o.kind == OutputRequest::Kind::kSample;
  ++totals_.passes;
  totals_.generated_tokens += decoded;
  for (const PassSegment& s : pass.segments) {
    if (s.tokens > 1 || s.first_position == 0) totals_.prompt_tokens += s.tokens;
  }
  recent_.emplace_back(now, decoded);
  while (recent_.front().first < now - absl::Seconds(5)) recent_.pop_front();
}

absl::Status Engine::Impl::RunSession(const std::shared_ptr<Session>& session) {
  session->submitted = absl::Now();
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return absl::CancelledError("the engine is stopping");
    MILLRACE_RETURN_IF_ERROR(scheduler_.Add(session));
  }
  // Bounded by the pass timeout: every pass ends, and a stopping engine fails what is left.
  session->done.WaitForNotification();
  return session->status;
}

absl::Status Engine::Impl::CheckTokens(const std::vector<TokenId>& tokens) const {
  if (tokens.empty()) return absl::InvalidArgumentError("the prompt is empty: give at least one token");
  for (TokenId t : tokens) {
    if (t < 0 || t >= model_->spec().vocab) {
      return absl::InvalidArgumentError(absl::StrCat("token ", t, " is outside the vocabulary of ",
                                                     model_->spec().vocab));
    }
  }
  if (static_cast<int>(tokens.size()) > options_.context) {
    return absl::InvalidArgumentError(
        absl::StrCat("the prompt has ", tokens.size(), " tokens but the context is ",
                     options_.context, ": shorten it or plan with a larger --ctx"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TokenId>> Engine::Impl::PromptTokens(
    const GenerateRequest& request) const {
  std::vector<TokenId> tokens = request.tokens;
  if (tokens.empty()) {
    tokens = tokenizer_->Encode(request.prompt, {tokenizer_->adds_bos(), request.parse_special});
  }
  MILLRACE_RETURN_IF_ERROR(CheckTokens(tokens));
  return tokens;
}

RequestId Engine::Impl::MakeId() {
  absl::MutexLock lock(&mutex_);
  return RequestId(absl::StrCat("request-", ++next_id_));
}

bool Engine::Impl::Cancel(const RequestId& id) {
  absl::MutexLock lock(&mutex_);
  return scheduler_.Cancel(id);
}

EngineStats Engine::Impl::Stats() const {
  absl::MutexLock lock(&mutex_);
  EngineStats stats = totals_;
  stats.running = scheduler_.running();
  stats.queued = scheduler_.waiting();
  stats.slots = options_.slots;
  int tokens = 0;
  const absl::Time now = absl::Now();
  absl::Time oldest = now;
  for (const auto& [when, count] : recent_) {
    if (when < now - absl::Seconds(5)) continue;
    oldest = std::min(oldest, when);
    tokens += count;
  }
  const double seconds = absl::ToDoubleSeconds(now - oldest);
  if (seconds > 0) stats.decode_tokens_per_second = tokens / seconds;
  return stats;
}

void Engine::Impl::Stop() {
  absl::MutexLock stop_lock(&stop_mutex_);
  if (!thread_.joinable()) return;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  first_->Cancel();
  thread_.join();
  std::vector<std::shared_ptr<Session>> left;
  {
    absl::MutexLock lock(&mutex_);
    left = scheduler_.FailAll(absl::CancelledError("the engine was stopped"));
  }
  Notify(left);
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(std::shared_ptr<const Model> model,
                                                       std::unique_ptr<StageRunner> first,
                                                       const EngineOptions& options) {
  if (options.context < 1 || options.slots < 1 || options.max_pass_tokens < 1) {
    return absl::InvalidArgumentError("engine: context, slots and max_pass_tokens must be at least 1");
  }
  auto tokenizer = Tokenizer::Create(model->vocabulary());
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), model->reference());
  return std::unique_ptr<Engine>(new Engine(std::make_unique<Impl>(
      std::move(model), *std::move(tokenizer), std::move(first), options)));
}

absl::StatusOr<GenerateSummary> Engine::Generate(
    const GenerateRequest& request, const std::function<bool(const GenerateEvent&)>& on_event) {
  MILLRACE_RETURN_IF_ERROR(CheckSampling(request.sampling));
  MILLRACE_ASSIGN_OR_RETURN(std::vector<TokenId> prompt, impl_->PromptTokens(request));
  GenerateSummary summary;
  summary.id = request.id.empty() ? impl_->MakeId() : request.id;
  summary.prompt_tokens = prompt;
  if (request.max_tokens == 0) return summary;
  auto session = std::make_shared<Session>(Session::Kind::kGenerate, &impl_->tokenizer(), request.stop);
  session->id = summary.id;
  session->request = request;
  session->on_event = on_event;
  session->tokens = std::move(prompt);
  MILLRACE_RETURN_IF_ERROR(impl_->RunSession(session));
  summary.finish = session->finish;
  summary.tokens = session->generated;
  summary.text = session->text;
  if (!session->generated.empty()) {
    summary.queued = session->started - session->submitted;
    summary.ttft = session->first_token - session->submitted;
    if (session->generated.size() > 1) {
      summary.time_per_token = (session->last_token - session->first_token) /
                               static_cast<int64_t>(session->generated.size() - 1);
    }
  }
  return summary;
}

absl::StatusOr<std::vector<float>> Engine::Logits(const std::vector<TokenId>& tokens) {
  MILLRACE_RETURN_IF_ERROR(impl_->CheckTokens(tokens));
  auto session = std::make_shared<Session>(Session::Kind::kLogits, &impl_->tokenizer(),
                                           std::vector<std::string>());
  session->id = impl_->MakeId();
  session->tokens = tokens;
  MILLRACE_RETURN_IF_ERROR(impl_->RunSession(session));
  return std::move(session->values);
}

absl::StatusOr<std::vector<float>> Engine::LogProbs(const std::vector<TokenId>& tokens, int first) {
  MILLRACE_RETURN_IF_ERROR(impl_->CheckTokens(tokens));
  if (first < 1 || first >= static_cast<int>(tokens.size())) {
    return absl::InvalidArgumentError(absl::StrCat("scoring from token ", first, " of ",
                                                   tokens.size(), ": 1 or later is possible"));
  }
  auto session = std::make_shared<Session>(Session::Kind::kLogProbs, &impl_->tokenizer(),
                                           std::vector<std::string>());
  session->id = impl_->MakeId();
  session->tokens = tokens;
  session->first_scored = first;
  MILLRACE_RETURN_IF_ERROR(impl_->RunSession(session));
  return std::move(session->values);
}

absl::Status Engine::Cancel(const RequestId& id) {
  if (impl_->Cancel(id)) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("no generation with id '", id.value(), "' runs or waits"));
}

EngineStats Engine::stats() const { return impl_->Stats(); }
const Tokenizer& Engine::tokenizer() const { return impl_->tokenizer(); }
const Model& Engine::model() const { return impl_->model(); }
void Engine::Stop() { impl_->Stop(); }

}  // namespace millrace
