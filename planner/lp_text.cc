#include "planner/lp_text.h"

#include <cstdlib>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace millrace {
namespace {

// Lines are kept short: readers have limits.
std::string Joined(const LpSum& sum) {
  std::map<std::string, double> factors;
  for (const auto& [factor, variable] : sum.terms) factors[variable] += factor;
  std::string text;
  int column = 0;
  for (const auto& [variable, factor] : factors) {
    if (factor == 0) continue;
    if (++column % 6 == 0) absl::StrAppend(&text, "\n ");
    absl::StrAppendFormat(&text, " %c %.15g %s", factor < 0 ? '-' : '+', std::abs(factor),
                          variable);
  }
  return text;
}

std::string List(absl::string_view title, const std::vector<std::string>& variables) {
  if (variables.empty()) return "";
  std::string text(title);
  for (const std::string& variable : variables) absl::StrAppend(&text, "\n ", variable);
  return absl::StrCat(text, "\n");
}

}  // namespace

void LpText::Row(const LpSum& sum, absl::string_view relation, double value) {
  const std::string text = Joined(sum);
  // `zero` is a variable that is 0.
  absl::StrAppendFormat(&rows_, "c%d:%s %s %.15g\n", ++count_, text.empty() ? " zero" : text,
                        std::string(relation), value);
}

std::string LpText::Text() const {
  return absl::StrCat("Minimize\nobj:", Joined(objective_), "\nSubject To\n", rows_,
                      "Bounds\n zero <= 0\n", List("Binaries", binaries_),
                      List("Generals", integers_), "End\n");
}

}  // namespace millrace
