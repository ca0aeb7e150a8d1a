#include "tools/cbc.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/status_macros.h"
#include "tools/child_process.h"

namespace millrace {
namespace {

// A folder of its own, gone with it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::error_code error;
    path_ = (std::filesystem::temp_directory_path(error) / "millrace-cbc-XXXXXX").string();
    if (mkdtemp(path_.data()) == nullptr) path_.clear();
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The number that follows `label` in the last line that has it.
std::optional<double> NumberAfter(absl::string_view log, absl::string_view label) {
  const size_t at = log.rfind(label);
  if (at == absl::string_view::npos) return std::nullopt;
  const std::vector<absl::string_view> words =
      absl::StrSplit(log.substr(at + label.size(), 80), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  double number = 0;
  if (words.empty() || !absl::SimpleAtod(words.front(), &number)) return std::nullopt;
  return number;
}

}  // namespace

absl::StatusOr<CbcAnswer> ParseCbc(absl::string_view log, absl::string_view solution) {
  CbcAnswer answer;
  const std::vector<absl::string_view> lines = absl::StrSplit(solution, '\n');
  answer.infeasible = absl::StrContains(lines.front(), "nfeasible");
  answer.optimal = absl::StartsWith(lines.front(), "Optimal");
  answer.bound = -std::numeric_limits<double>::infinity();
  if (answer.infeasible) return answer;
  const std::optional<double> objective = NumberAfter(lines.front(), "objective value");
  if (!objective) {
    return absl::UnavailableError(absl::StrCat(
        "cbc's solution does not begin with its objective, but with '", lines.front(), "'"));
  }
  answer.objective = *objective;
  // Of the linear relaxation, and of the search where that was cut short.
  for (absl::string_view label : {"Continuous objective value is", "Lower bound:"}) {
    if (const auto bound = NumberAfter(log, label)) answer.bound = std::max(answer.bound, *bound);
  }
  if (answer.optimal) answer.bound = answer.objective;
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::vector<absl::string_view> words = absl::StrSplit(lines[i], ' ', absl::SkipEmpty());
    double value = 0;
    if (words.size() < 3 || !absl::SimpleAtod(words[words.size() - 2], &value)) continue;
    answer.values[std::string(words[words.size() - 3])] = value;
  }
  return answer;
}

absl::StatusOr<CbcAnswer> RunCbc(absl::string_view lp, absl::Duration limit) {
  const TemporaryFolder folder;
  if (folder.path().empty()) return absl::UnavailableError("cannot make a temporary folder");
  const std::string model = absl::StrCat(folder.path(), "/model.lp");
  const std::string solution = absl::StrCat(folder.path(), "/solution.txt");
  std::ofstream(model) << lp;
  const absl::StatusOr<std::string> log =
      RunAndRead({"cbc", model, "-sec", absl::StrCat(absl::ToDoubleSeconds(limit)), "-ratio", "0",
                  "-allow", "0", "-timeMode", "elapsed", "solve", "solution", solution});
  if (absl::IsNotFound(log.status())) {
    return absl::NotFoundError(
        "the solver cbc is not installed: Debian and Ubuntu have it as coinor-cbc");
  }
  MILLRACE_RETURN_IF_ERROR(log.status());
  std::ifstream file(solution);
  if (!file) return absl::UnavailableError("cbc wrote no solution");
  std::stringstream text;
  text << file.rdbuf();
  return ParseCbc(*log, text.str());
}

}  // namespace millrace
