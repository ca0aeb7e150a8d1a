#include "worker/batch_scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"

namespace millrace {

BatchScheduler::BatchScheduler(const EngineOptions& options, const Tokenizer* tokenizer)
    : options_(options), tokenizer_(tokenizer) {
  for (int slot = options.slots - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

absl::Status BatchScheduler::Add(std::shared_ptr<Session> session) {
  // Those that free slots will take at the next pass do not count.
  if (waiting_.size() >= static_cast<size_t>(options_.max_queue) + free_slots_.size()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", running_.size(), " sequences run on ", options_.slots,
                     " slots and ", waiting_.size(),
                     " wait; try again later or plan with more --slots"));
  }
  waiting_.push_back(std::move(session));
  return absl::OkStatus();
}

void BatchScheduler::DropCancelled() {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if ((*it)->cancelled.load()) {
      cancelled_.push_back(*it);
      it = waiting_.erase(it);
    } else {
      ++it;
    }
  }
  const std::vector<std::shared_ptr<Session>> running = running_;
  for (const auto& s : running) {
    if (!s->cancelled.load()) continue;
    cancelled_.push_back(s);
    Leave(s);
  }
  for (const auto& s : cancelled_) {
    s->finish = FinishReason::kCancelled;
    if (s->kind != Session::Kind::kGenerate) s->status = absl::CancelledError("cancelled");
  }
}

void BatchScheduler::Admit(absl::Time now) {
  while (!waiting_.empty() && !free_slots_.empty()) {
    std::shared_ptr<Session> s = std::move(waiting_.front());
    waiting_.pop_front();
    s->slot = free_slots_.back();
    free_slots_.pop_back();
    s->started = now;
    running_.push_back(std::move(s));
  }
}

void BatchScheduler::AddShare(const std::shared_ptr<Session>& session, int tokens, Pass& pass) {
  Session& s = *session;
  const int first_row = static_cast<int>(pass.tokens.size());
  pass.segments.push_back({s.slot, s.cached, tokens});
  pass.tokens.insert(pass.tokens.end(), s.tokens.begin() + s.cached,
                     s.tokens.begin() + s.cached + tokens);
  const size_t outputs_before = pass.outputs.size();
  const int end = s.cached + tokens;  // positions in the cache after the pass
  if (s.kind == Session::Kind::kLogProbs) {
    // Row of position p predicts the token at p + 1.
    for (int p = s.cached; p < end; ++p) {
      if (p + 1 < s.first_scored || p + 1 >= static_cast<int>(s.tokens.size())) continue;
      OutputRequest o;
      o.kind = OutputRequest::Kind::kLogProb;
      o.row = first_row + p - s.cached;
      o.target = s.tokens[static_cast<size_t>(p) + 1];
      pass.outputs.push_back(std::move(o));
    }
  } else if (end == static_cast<int>(s.tokens.size())) {
    OutputRequest o;
    o.row = first_row + tokens - 1;
    if (s.kind == Session::Kind::kLogits) {
      o.kind = OutputRequest::Kind::kLogits;
    } else {
      o.sampling = s.request.sampling;
      o.sample_index = s.generated.size();
      if (o.sampling.repetition_penalty != 1.0f) {
        const size_t n =
            std::min(s.tokens.size(), static_cast<size_t>(o.sampling.repetition_window));
        o.recent.assign(s.tokens.end() - static_cast<std::ptrdiff_t>(n), s.tokens.end());
      }
    }
    pass.outputs.push_back(std::move(o));
  }
  shares_.push_back({session, tokens, static_cast<int>(pass.outputs.size() - outputs_before)});
}

bool BatchScheduler::NextBatch(absl::Time now, Pass& pass) {
  DropCancelled();
  Admit(now);
  shares_.clear();
  pass = Pass();
  pass.epoch = options_.epoch;
  int room = options_.max_pass_tokens;
  std::vector<std::shared_ptr<Session>> prefills, decodes;
  for (const auto& s : running_) (s->pending() == 1 ? decodes : prefills).push_back(s);
  // Decodes go in first, but a prompt always gets at least one token of the pass (unless the pass is
  // one token: then they take turns), and where not all decodes fit they take turns too.
  int decode_room = room;
  if (!prefills.empty()) decode_room = room > 1 ? room - 1 : static_cast<int>(next_prefill_ % 2);
  for (size_t i = 0; i < decodes.size() && decode_room > 0; ++i, --decode_room, --room) {
    AddShare(decodes[(next_decode_ + i) % decodes.size()], 1, pass);
  }
  if (!decodes.empty()) next_decode_ += static_cast<size_t>(options_.max_pass_tokens);
  if (!prefills.empty()) {
    // Everybody's chunk is the same share of the room; what short prompts leave goes to the rest.
    const size_t count = prefills.size();
    for (size_t i = 0; i < count && room > 0; ++i) {
      const auto& s = prefills[(next_prefill_ + i) % count];
      const int share = std::max(1, room / static_cast<int>(count - i));
      const int tokens = std::min(s->pending(), share);
      AddShare(s, tokens, pass);
      room -= tokens;
    }
    ++next_prefill_;
  }
  return !pass.tokens.empty();
}

void BatchScheduler::Emit(Session& s, const RowOutput& output, std::string text) {
  s.text += text;
  if (!s.on_event) return;
  GenerateEvent event;
  event.offset = static_cast<int64_t>(s.generated.size()) - 1;
  event.token = output.token;
  event.log_prob = output.log_prob;
  event.text = std::move(text);
  if (!s.on_event(event)) s.cancelled.store(true);
}

// The end of a session's text: bytes of an unfinished character, and what was held back for a stop
// string (which these bytes may still complete).
std::string BatchScheduler::Flush(Session& s) {
  std::string text = s.stops.Push(s.decoder.Finish());
  if (s.stops.stopped()) s.finish = FinishReason::kStopString;
  return text + s.stops.Finish();
}

// Adds one generated token. True when the session is finished.
bool BatchScheduler::TakeToken(Session& s, const RowOutput& output, absl::Time now) {
  if (s.generated.empty()) s.first_token = now;
  s.last_token = now;
  const bool ends =
      !s.request.ignore_end_of_generation && tokenizer_->IsEndOfGeneration(output.token);
  if (ends) {
    s.finish = FinishReason::kEndOfGeneration;
    s.generated.push_back(output.token);
    Emit(s, output, Flush(s));
    return true;
  }
  s.generated.push_back(output.token);
  s.tokens.push_back(output.token);
  std::string text = s.stops.Push(s.decoder.Push(output.token));
  const bool full = s.request.max_tokens >= 0 &&
                    static_cast<int>(s.generated.size()) >= s.request.max_tokens;
  if (s.stops.stopped()) {
    s.finish = FinishReason::kStopString;
    Emit(s, output, std::move(text));
    return true;
  }
  if (full) {
    s.finish = FinishReason::kMaxTokens;
    Emit(s, output, text + Flush(s));
    return true;
  }
  if (FinishIfFull(s)) {
    Emit(s, output, text + Flush(s));
    return true;
  }
  Emit(s, output, std::move(text));
  return false;
}

// The sequence has reached the context: end it, or forget its oldest half after the first token and
// read the rest again at its new positions.
bool BatchScheduler::FinishIfFull(Session& s) {
  if (static_cast<int>(s.tokens.size()) <= options_.context) return false;
  if (s.request.overflow == ContextOverflow::kStop) {
    s.finish = FinishReason::kContextFull;
    return true;
  }
  const auto keep = static_cast<std::ptrdiff_t>(options_.context / 2);
  s.tokens.erase(s.tokens.begin() + 1, s.tokens.end() - keep);
  s.cached = 0;
  return false;
}

void BatchScheduler::Leave(const std::shared_ptr<Session>& session) {
  if (session->slot >= 0) free_slots_.push_back(session->slot);
  session->slot = -1;
  running_.erase(std::remove(running_.begin(), running_.end(), session), running_.end());
}

std::vector<std::shared_ptr<Session>> BatchScheduler::Complete(const Pass& pass, PassResult result,
                                                               absl::Time now) {
  if (result.outputs.size() != pass.outputs.size()) {
    return Fail(absl::InternalError(absl::StrCat("pass ", pass.id, " asked for ",
                                                 pass.outputs.size(), " outputs and got ",
                                                 result.outputs.size())));
  }
  std::vector<std::shared_ptr<Session>> finished;
  size_t at = 0;
  for (const Share& share : shares_) {
    Session& s = *share.session;
    s.cached += share.tokens;
    bool done = false;
    for (int i = 0; i < share.outputs; ++i) {
      RowOutput& output = result.outputs[at++];
      switch (s.kind) {
        case Session::Kind::kGenerate: done = TakeToken(s, output, now); break;
        case Session::Kind::kLogits: s.values = std::move(output.logits); break;
        case Session::Kind::kLogProbs: s.values.push_back(output.log_prob); break;
      }
    }
    if (s.kind != Session::Kind::kGenerate) done = s.pending() == 0;
    if (done) finished.push_back(share.session);
  }
  for (const auto& s : finished) Leave(s);
  shares_.clear();
  return finished;
}

std::vector<std::shared_ptr<Session>> BatchScheduler::Fail(const absl::Status& status) {
  std::vector<std::shared_ptr<Session>> failed;
  for (const Share& share : shares_) {
    share.session->status = status;
    Leave(share.session);
    failed.push_back(share.session);
  }
  shares_.clear();
  return failed;
}

std::vector<std::shared_ptr<Session>> BatchScheduler::FailAll(const absl::Status& status) {
  std::vector<std::shared_ptr<Session>> failed(waiting_.begin(), waiting_.end());
  failed.insert(failed.end(), running_.begin(), running_.end());
  for (const auto& s : failed) s->status = status;
  while (!running_.empty()) Leave(running_.back());
  waiting_.clear();
  shares_.clear();
  return failed;
}

std::vector<std::shared_ptr<Session>> BatchScheduler::TakeCancelled() {
  return std::exchange(cancelled_, {});
}

bool BatchScheduler::Cancel(const RequestId& id) {
  bool found = false;
  auto mark = [&](const std::shared_ptr<Session>& s) {
    if (s->id != id) return;
    s->cancelled.store(true);
    found = true;
  };
  for (const auto& s : waiting_) mark(s);
  for (const auto& s : running_) mark(s);
  return found;
}

}  // namespace millrace
