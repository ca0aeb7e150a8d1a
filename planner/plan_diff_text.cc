// RenderPlanDiff.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "planner/plan_diff.h"
#include "planner/plan_words.h"

namespace millrace {
namespace {

constexpr size_t kWidth = 100, kNameWidth = 34;

std::string FieldLines(const char* indent, const std::vector<FieldChange>& changes) {
  std::string out;
  for (const FieldChange& c : changes) {
    const std::string line = absl::StrCat(indent, c.field, ": ", c.before, " -> ", c.after);
    absl::StrAppend(&out, WrapAt(line, kWidth), "\n");
  }
  return out;
}

std::string Signed(Bytes b) { return absl::StrCat(b > Bytes(0) ? "+" : "", FormatBytes(b)); }

std::string MemoryTable(const std::vector<BytesChange>& changes) {
  if (changes.empty()) return "";
  size_t width = kNameWidth;
  for (const BytesChange& c : changes) width = std::max(width, c.place.size() + c.what.size() + 1);
  const int w = static_cast<int>(width);
  std::string out =
      absl::StrFormat("\n%-*s %12s %12s %12s\n", w + 2, "memory", "before", "after", "difference");
  for (const BytesChange& c : changes) {
    absl::StrAppendFormat(&out, "  %-*s %12s %12s %12s\n", w, absl::StrCat(c.place, " ", c.what),
                          FormatBytes(c.before), FormatBytes(c.after), Signed(c.after - c.before));
  }
  return out;
}

std::string BlockLines(const char* title, const std::vector<BlockChange>& changes) {
  if (changes.empty()) return "";
  std::string out = absl::StrCat("\n", title, "\n");
  for (const BlockChange& c : changes) {
    const Bytes weights = std::max(c.before_weights, c.after_weights);
    const std::string line =
        absl::StrFormat("  %s: %s -> %s (%d block%s, %s)", BlockRanges(c.blocks), c.before, c.after,
                        c.blocks.size(), c.blocks.size() == 1 ? "" : "s", FormatBytes(weights));
    absl::StrAppend(&out, WrapAt(line, kWidth), "\n");
  }
  return out;
}

std::string PredictionTable(const std::vector<PredictionChange>& changes) {
  if (changes.empty()) return "";
  size_t width = kNameWidth;
  for (const PredictionChange& c : changes) width = std::max(width, c.label.size());
  const int w = static_cast<int>(width);
  std::string out = absl::StrFormat("\n%-*s %12s %12s %12s\n", w + 2, "predicted", "before",
                                    "after", "difference");
  for (const PredictionChange& c : changes) {
    absl::StrAppendFormat(&out, "  %-*s %12.2f %12.2f %+12.2f", w, c.label, c.before, c.after,
                          c.difference());
    if (c.percent() != 0) absl::StrAppendFormat(&out, "  %+.1f%%", c.percent());
    absl::StrAppend(&out, "\n");
  }
  return out;
}

}  // namespace

std::string RenderPlanDiff(const PlanDiff& diff) {
  if (diff.same()) return "the plans are the same\n";
  std::string out;
  if (diff.other_model) {
    absl::StrAppend(&out, "the plans are of different models; blocks are compared by name\n");
  }
  absl::StrAppend(&out, FieldLines("", diff.settings));
  if (!diff.stages.empty()) absl::StrAppend(&out, "\nstages\n", FieldLines("  ", diff.stages));
  absl::StrAppend(&out, MemoryTable(diff.memory));
  absl::StrAppend(&out, BlockLines("blocks that moved", diff.moved));
  absl::StrAppend(&out, BlockLines("blocks computed otherwise", diff.routes));
  absl::StrAppend(&out, BlockLines("KV caches that moved", diff.kv_caches));
  absl::StrAppend(&out, BlockLines("blocks held otherwise", diff.held));
  absl::StrAppend(&out, PredictionTable(diff.predictions));
  return out[0] == '\n' ? out.substr(1) : out;
}

}  // namespace millrace
