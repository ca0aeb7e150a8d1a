#include "absl/strings/str_cat.h"
#include "proto/convert.h"
#include "proto/field_check.h"

namespace millrace {
namespace {

constexpr int kMostPoints = 4096;

ProductTime ProductFromProto(FieldCheck& check, const std::string& at,
                             const v1::ProductTime& wire) {
  ProductTime p;
  const absl::StatusOr<DType> type = FromProto(wire.type());
  if (type.ok()) {
    p.type = *type;
  } else {
    check.Refuse(at + ".type", "unknown type ", static_cast<int>(wire.type()));
  }
  p.tokens = check.Int32(at + ".tokens", wire.tokens(), 1, 1 << 24);
  p.weights = check.Size(at + ".weights", wire.weights());
  p.seconds = check.NonNegative(at + ".seconds", wire.seconds());
  if (p.weights == Bytes(0)) check.Refuse(at + ".weights", "must not be 0");
  if (p.seconds == 0) check.Refuse(at + ".seconds", "must not be 0");
  return p;
}

}  // namespace

v1::DeviceTimes ToProto(const DeviceTimes& times) {
  v1::DeviceTimes wire;
  for (const ProductTime& p : times.products) {
    v1::ProductTime& out = *wire.add_products();
    out.set_type(ToProto(p.type));
    out.set_tokens(p.tokens);
    out.set_weights(p.weights.count());
    out.set_seconds(p.seconds);
  }
  for (const AttentionTime& a : times.attention) {
    v1::AttentionTime& out = *wire.add_attention();
    out.set_sequences(a.sequences);
    out.set_fixed_seconds(a.fixed_seconds);
    out.set_seconds_per_byte(a.seconds_per_byte);
  }
  for (const SustainedRatio& s : times.sustained) {
    v1::SustainedRatio& out = *wire.add_sustained();
    out.set_tokens(s.tokens);
    out.set_ratio(s.ratio);
  }
  wire.set_attention_flops(times.attention_flops);
  wire.set_prompt_row_seconds(times.prompt_row_seconds);
  wire.set_pass_seconds(times.pass_seconds);
  wire.set_output_seconds(times.output_seconds);
  return wire;
}

DeviceTimes DeviceTimesFromProto(FieldCheck& check, const std::string& field,
                                 const v1::DeviceTimes& wire) {
  DeviceTimes times;
  if (wire.products_size() > kMostPoints || wire.attention_size() > kMostPoints ||
      wire.sustained_size() > kMostPoints) {
    check.Refuse(field, "more than ", kMostPoints, " points");
    return times;
  }
  for (const v1::ProductTime& p : wire.products()) {
    const std::string at = absl::StrCat(field, ".products[", times.products.size(), "]");
    times.products.push_back(ProductFromProto(check, at, p));
  }
  for (const v1::AttentionTime& a : wire.attention()) {
    const std::string at = absl::StrCat(field, ".attention[", times.attention.size(), "]");
    const int above = times.attention.empty() ? 0 : times.attention.back().sequences;
    times.attention.push_back({check.Int32(at + ".sequences", a.sequences(), above + 1, 1 << 24),
                               check.NonNegative(at + ".fixed_seconds", a.fixed_seconds()),
                               check.NonNegative(at + ".seconds_per_byte", a.seconds_per_byte())});
  }
  for (const v1::SustainedRatio& s : wire.sustained()) {
    const std::string at = absl::StrCat(field, ".sustained[", times.sustained.size(), "]");
    const int above = times.sustained.empty() ? 0 : times.sustained.back().tokens;
    times.sustained.push_back({check.Int32(at + ".tokens", s.tokens(), above + 1, 1 << 24),
                               check.NonNegative(at + ".ratio", s.ratio())});
  }
  times.attention_flops = check.NonNegative(field + ".attention_flops", wire.attention_flops());
  times.prompt_row_seconds =
      check.NonNegative(field + ".prompt_row_seconds", wire.prompt_row_seconds());
  times.pass_seconds = check.NonNegative(field + ".pass_seconds", wire.pass_seconds());
  times.output_seconds = check.NonNegative(field + ".output_seconds", wire.output_seconds());
  return times;
}

}  // namespace millrace
