#include "tools/precision_flags.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/status_macros.h"
#include "proto/stored_types.h"
#include "tools/budget_flags.h"

namespace millrace {
namespace {

// "60%" as a share of one; nothing where it is none.
std::optional<double> Percent(absl::string_view text) {
  double percent = 0;
  if (!absl::ConsumeSuffix(&text, "%") || !absl::SimpleAtod(text, &percent)) return std::nullopt;
  if (!(percent > 0 && percent <= 100)) return std::nullopt;
  return percent / 100;
}

absl::StatusOr<PrecisionFloor> ParseFloor(const std::string& text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
  const std::optional<DType> type = DTypeFromName(parts.second);
  const bool plain = type && !Info(*type).quantized;
  if (parts.first.empty() || !type ||
      (!plain &&
       std::find(kQuantizeTypes.begin(), kQuantizeTypes.end(), *type) == kQuantizeTypes.end())) {
    return absl::InvalidArgumentError(
        absl::StrCat("--min-precision: '", text,
                     "' is not PATTERN=TYPE with a type of f16, q8_0, q6_K, q5_K, q4_K, e.g. "
                     "'blk.*.attn_v=q8_0'"));
  }
  return PrecisionFloor{parts.first, *type};
}

}  // namespace

void AddPrecisionFlags(CLI::App* app, PrecisionFlags& flags) {
  app->add_option("--precision", flags.mode,
                  "keep: weights as in the file; auto: where f32, f16 or bf16 weights do not fit, "
                  "hold them in q8_0, q6_K, q5_K or q4_K, each tensor by what it costs")
      ->capture_default_str();
  app->add_option("--min-precision", flags.floors,
                  "with --precision auto, the least for tensors: 'blk.*.attn_v=q8_0', "
                  "'output=f16' (repeatable)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app->add_option("--weight-memory", flags.weight_memory,
                  "with --precision auto, hold the weights in at most this: 8GiB, or 60% of the "
                  "file's [what the devices hold]");
  app->add_option("--sensitivity", flags.sensitivity,
                  "with --precision auto, from `millrace calibrate` [MODEL.sensitivity.json where "
                  "it is there, else a default table]");
}

std::optional<Bytes> PrecisionWishes::Limit(Bytes file) const {
  if (weight_memory.empty()) return std::nullopt;
  if (const std::optional<double> share = Percent(weight_memory)) {
    return Bytes(static_cast<int64_t>(static_cast<double>(file.count()) * *share));
  }
  return ParseSize("--weight-memory", weight_memory).value_or(Bytes(0));  // was checked
}

absl::StatusOr<PrecisionWishes> ParsePrecision(const PrecisionFlags& flags) {
  PrecisionWishes wishes;
  if (flags.mode != "keep" && flags.mode != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("--precision: '", flags.mode, "' is not one of keep, auto"));
  }
  wishes.automatic = flags.mode == "auto";
  for (const auto& [flag, given] : {std::pair("--min-precision", !flags.floors.empty()),
                                    std::pair("--weight-memory", !flags.weight_memory.empty()),
                                    std::pair("--sensitivity", !flags.sensitivity.empty())}) {
    if (wishes.automatic || !given) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": has no effect with --precision keep; add --precision auto"));
  }
  for (const std::string& text : flags.floors) {
    MILLRACE_ASSIGN_OR_RETURN(wishes.floors.emplace_back(), ParseFloor(text));
  }
  if (!flags.weight_memory.empty() && !Percent(flags.weight_memory)) {
    if (absl::EndsWith(flags.weight_memory, "%")) {
      return absl::InvalidArgumentError(absl::StrCat("--weight-memory: '", flags.weight_memory,
                                                     "' is not above 0% and at most 100%"));
    }
    MILLRACE_RETURN_IF_ERROR(ParseSize("--weight-memory", flags.weight_memory).status());
  }
  wishes.weight_memory = flags.weight_memory;
  wishes.sensitivity = flags.sensitivity;
  return wishes;
}

}  // namespace millrace
