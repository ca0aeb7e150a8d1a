#include "worker/link/pass_messages.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "proto/field_check.h"
#include "proto/grpc_transport.h"
#include "proto/status_macros.h"
#include "worker/generate_messages.h"

namespace millrace {
namespace {

static_assert(std::endian::native == std::endian::little, "hidden states travel little-endian");
static_assert(static_cast<int>(OutputRequest::Kind::kLogProb) == v1::OutputRequest::KIND_LOG_PROB);

constexpr int kLogitsPerPart = kChunkBytes / static_cast<int>(sizeof(float));
constexpr int kRowsPerPart = 4096;  // rows without logits

v1::OutputRequest OutputToProto(const OutputRequest& output) {
  v1::OutputRequest wire;
  wire.set_kind(static_cast<v1::OutputRequest::Kind>(static_cast<int>(output.kind)));
  wire.set_row(output.row);
  if (output.kind == OutputRequest::Kind::kSample) {
    *wire.mutable_sampling() = ToProto(output.sampling);
    wire.set_sample_index(output.sample_index);
    wire.mutable_recent()->Add(output.recent.begin(), output.recent.end());
  }
  wire.set_target(output.target);
  return wire;
}

OutputRequest OutputFromProto(FieldCheck& check, int index, const v1::OutputRequest& wire) {
  OutputRequest output;
  const std::string at = absl::StrCat("PassHeader.outputs[", index, "].kind");
  output.kind = static_cast<OutputRequest::Kind>(check.Int32(at, wire.kind(), 0, 2));
  output.row = wire.row();
  output.sampling = FromProto(wire.sampling());
  output.sample_index = wire.sample_index();
  output.recent.assign(wire.recent().begin(), wire.recent().end());
  output.target = wire.target();
  return output;
}

}  // namespace

v1::PassHeader ToProto(const Pass& pass, FloatView hidden, absl::Duration timeout) {
  v1::PassHeader wire;
  wire.set_id(pass.id);
  wire.set_epoch(pass.epoch.value);
  wire.mutable_tokens()->Add(pass.tokens.begin(), pass.tokens.end());
  for (const PassSegment& segment : pass.segments) {
    v1::PassSegment& out = *wire.add_segments();
    out.set_slot(segment.slot);
    out.set_first_position(segment.first_position);
    out.set_tokens(segment.tokens);
  }
  for (const OutputRequest& output : pass.outputs) *wire.add_outputs() = OutputToProto(output);
  wire.set_hidden_rows(static_cast<int>(hidden.rows));
  wire.set_hidden_cols(static_cast<int>(hidden.cols));
  wire.set_timeout_ms(std::max<int64_t>(1, absl::ToInt64Milliseconds(timeout)));
  return wire;
}

absl::StatusOr<Pass> FromProto(const v1::PassHeader& wire) {
  FieldCheck check;
  Pass pass;
  pass.id = wire.id();
  pass.epoch = Epoch{wire.epoch()};
  pass.tokens.assign(wire.tokens().begin(), wire.tokens().end());
  if (pass.tokens.empty()) check.Refuse("PassHeader.tokens", "is empty");
  if (wire.hidden_rows() != wire.tokens_size()) {
    check.Refuse("PassHeader.hidden_rows", wire.hidden_rows(), " rows of hidden states for ",
                 wire.tokens_size(), " tokens");
  }
  for (const v1::PassSegment& segment : wire.segments()) {
    pass.segments.push_back({segment.slot(), segment.first_position(), segment.tokens()});
  }
  for (int i = 0; i < wire.outputs_size(); ++i) {
    pass.outputs.push_back(OutputFromProto(check, i, wire.outputs(i)));
  }
  check.Int("PassHeader.timeout_ms", wire.timeout_ms(), 1, int64_t{1} << 40);
  if (!check.ok()) return check.status();
  return pass;
}

absl::Status ForEachChunk(FloatView hidden,
                          absl::FunctionRef<absl::Status(absl::string_view)> send) {
  std::string chunk;
  const size_t row_bytes = static_cast<size_t>(hidden.cols) * sizeof(float);
  chunk.reserve(std::min<size_t>(kChunkBytes, row_bytes * static_cast<size_t>(hidden.rows)));
  for (int64_t r = 0; r < hidden.rows; ++r) {
    const char* row = reinterpret_cast<const char*>(hidden.row(r));
    for (size_t at = 0; at < row_bytes;) {
      const size_t n = std::min(row_bytes - at, kChunkBytes - chunk.size());
      chunk.append(row + at, n);
      at += n;
      if (chunk.size() == kChunkBytes) {
        MILLRACE_RETURN_IF_ERROR(send(chunk));
        chunk.clear();
      }
    }
  }
  return chunk.empty() ? absl::OkStatus() : send(chunk);
}

absl::Status HiddenAssembler::Start(int64_t rows, int64_t cols, int64_t max_elements) {
  if (rows < 1 || cols < 1 || rows > max_elements / cols) {
    return absl::InvalidArgumentError(absl::StrCat("PassHeader.hidden_rows x hidden_cols: ", rows,
                                                   " x ", cols, " is not in [1, ", max_elements,
                                                   "] values"));
  }
  rows_ = rows;
  cols_ = cols;
  filled_ = 0;
  buffer_.resize(static_cast<size_t>(rows * cols));
  return absl::OkStatus();
}

absl::Status HiddenAssembler::Add(absl::string_view chunk) {
  if (chunk.empty() || chunk.size() > buffer_.size() * sizeof(float) - filled_) {
    return absl::InvalidArgumentError(
        absl::StrCat("StageRequest.chunk: ", chunk.size(), " bytes where ",
                     buffer_.size() * sizeof(float) - filled_, " are missing"));
  }
  std::memcpy(reinterpret_cast<char*>(buffer_.data()) + filled_, chunk.data(), chunk.size());
  filled_ += chunk.size();
  return absl::OkStatus();
}

absl::Status ForEachPart(const PassResult& result,
                         absl::FunctionRef<absl::Status(const v1::PassResultPart&)> send) {
  v1::PassResultPart part;
  part.set_id(result.id);
  int values = 0;  // logits in `part`
  for (size_t i = 0; i < result.outputs.size(); ++i) {
    const RowOutput& output = result.outputs[i];
    size_t at = 0;
    do {
      if (values >= kLogitsPerPart || part.outputs_size() >= kRowsPerPart) {
        MILLRACE_RETURN_IF_ERROR(send(part));
        part.clear_outputs();
        values = 0;
      }
      v1::RowOutput& out = *part.add_outputs();
      out.set_index(static_cast<int>(i));
      out.set_token(output.token);
      out.set_log_prob(output.log_prob);
      const size_t n = std::min<size_t>(output.logits.size() - at, kLogitsPerPart - values);
      out.mutable_logits()->Add(output.logits.begin() + at, output.logits.begin() + at + n);
      at += n;
      values += static_cast<int>(n);
    } while (at < output.logits.size());
  }
  part.set_last(true);
  for (absl::Duration d : result.stage_compute) {
    part.add_stage_compute_ms(absl::ToDoubleMilliseconds(d));
  }
  return send(part);
}

absl::StatusOr<bool> ResultAssembler::Add(const v1::PassResultPart& part) {
  result_.id = part.id();
  for (const v1::RowOutput& in : part.outputs()) {
    if (in.index() < 0 || in.index() >= static_cast<int>(result_.outputs.size())) {
      return absl::InternalError(absl::StrCat("PassResultPart.outputs.index: ", in.index(), " of ",
                                              result_.outputs.size(), " asked for"));
    }
    RowOutput& out = result_.outputs[in.index()];
    out.token = in.token();
    out.log_prob = in.log_prob();
    out.logits.insert(out.logits.end(), in.logits().begin(), in.logits().end());
  }
  for (double ms : part.stage_compute_ms()) {
    result_.stage_compute.push_back(absl::Milliseconds(ms));
  }
  return part.last();
}

}  // namespace millrace
