#include "tools/cli_io.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "planner/plan_messages.h"
#include "planner/plan_report.h"
#include "proto/plan_json.h"

namespace millrace {

int ExitCodeOf(const absl::Status& status) {
  if (status.ok()) return kExitDone;
  return absl::IsInvalidArgument(status) ? kExitUsage : kExitFailed;
}

void PrintJson(const nlohmann::ordered_json& json) {
  const std::string text =
      json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

int ReportInfeasible(const Infeasibility& infeasible, bool json) {
  std::fputs(RenderInfeasible(infeasible).c_str(), stderr);
  if (json) {
    nlohmann::ordered_json out;
    out["infeasible"] =
        nlohmann::ordered_json::parse(MessageToJson(ToProto(infeasible)), nullptr, false);
    PrintJson(out);
  }
  return kExitDoesNotFit;
}

absl::StatusOr<std::vector<int>> ParseIntList(absl::string_view flag, absl::string_view text,
                                              int min) {
  std::vector<int> values;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    int value = 0;
    if (!absl::SimpleAtoi(part, &value) || value < min) {
      return absl::InvalidArgumentError(absl::StrCat(flag, ": '", part, "' in '", text,
                                                     "' is not a whole number of at least ", min,
                                                     "; give a list such as 1,2,3"));
    }
    values.push_back(value);
  }
  return values;
}

absl::StatusOr<std::string> ReadTextFile(absl::string_view flag, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat(flag, ": cannot read '", path, "': ", std::strerror(errno)));
  }
  text << file.rdbuf();
  if (file.bad() || (text.fail() && file.peek() != std::ifstream::traits_type::eof())) {
    return absl::DataLossError(absl::StrCat(flag, ": reading '", path, "' failed half-way"));
  }
  return text.str();
}

absl::Status WriteTextFile(absl::string_view flag, const std::string& path,
                           absl::string_view contents) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(contents.data(), static_cast<std::streamsize>(contents.size()));
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(flag, ": cannot write '", path, "': ", std::strerror(errno)));
}

}  // namespace millrace
