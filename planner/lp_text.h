// LpText: a linear program in the LP format that CBC, HiGHS and others read.
#ifndef MILLRACE_PLANNER_LP_TEXT_H_
#define MILLRACE_PLANNER_LP_TEXT_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace millrace {

// A sum of variables with factors.
struct LpSum {
  std::vector<std::pair<double, std::string>> terms;

  LpSum& Add(double factor, std::string variable) {
    if (factor != 0) terms.emplace_back(factor, std::move(variable));
    return *this;
  }
  LpSum& Add(double factor, const LpSum& sum) {
    for (const auto& [f, variable] : sum.terms) Add(factor * f, variable);
    return *this;
  }
};

// Variables are at least 0 unless said otherwise. Terms of one variable are added up.
class LpText {
 public:
  void Minimize(const LpSum& sum) { objective_ = sum; }
  void AtMost(const LpSum& sum, double limit) { Row(sum, "<=", limit); }
  void AtLeast(const LpSum& sum, double limit) { Row(sum, ">=", limit); }
  void Equal(const LpSum& sum, double value) { Row(sum, "=", value); }
  void Binary(const std::string& variable) { binaries_.push_back(variable); }
  void Integer(const std::string& variable) { integers_.push_back(variable); }

  std::string Text() const;

 private:
  // `relation` is given, so that a sum without terms is a row all the same.
  void Row(const LpSum& sum, absl::string_view relation, double value);

  LpSum objective_;
  std::string rows_;
  int count_ = 0;
  std::vector<std::string> binaries_, integers_;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_LP_TEXT_H_
