#include "tools/llama_bench.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/status_macros.h"
#include "tools/child_process.h"

namespace millrace {
namespace {

absl::StatusOr<double> NumberIn(const nlohmann::json& entry, const char* field) {
  const auto it = entry.find(field);
  if (it == entry.end() || !it->is_number()) {
    return absl::DataLossError(absl::StrCat("llama-bench's JSON has no number '", field, "'"));
  }
  return it->get<double>();
}

}  // namespace

absl::StatusOr<std::vector<PeerResult>> ParseLlamaBench(absl::string_view json) {
  const nlohmann::json array =
      nlohmann::json::parse(json.begin(), json.end(), nullptr, /*allow_exceptions=*/false);
  if (!array.is_array()) return absl::DataLossError("llama-bench did not print a JSON array");
  std::vector<PeerResult> results;
  for (const nlohmann::json& entry : array) {
    if (!entry.is_object()) return absl::DataLossError("llama-bench's array holds no objects");
    MILLRACE_ASSIGN_OR_RETURN(const double prompt, NumberIn(entry, "n_prompt"));
    MILLRACE_ASSIGN_OR_RETURN(const double generated, NumberIn(entry, "n_gen"));
    MILLRACE_ASSIGN_OR_RETURN(const double rate, NumberIn(entry, "avg_ts"));
    double depth = 0;
    if (entry.contains("n_depth")) {
      MILLRACE_ASSIGN_OR_RETURN(depth, NumberIn(entry, "n_depth"));
    }
    results.push_back({static_cast<int>(prompt), static_cast<int>(generated),
                       static_cast<int>(depth), rate});
  }
  return results;
}

std::vector<std::string> LlamaBenchCommand(const PeerRequest& request) {
  std::vector<std::string> command = {request.binary,
                                      "-m",
                                      request.model,
                                      "-p",
                                      absl::StrJoin(request.prompts, ","),
                                      "-n",
                                      absl::StrCat(request.generate),
                                      "-t",
                                      absl::StrCat(request.threads),
                                      "-r",
                                      absl::StrCat(request.repeat),
                                      "-o",
                                      "json"};
  if (request.gpu) {
    command.insert(command.end(), {"-ngl", "99", "-fa", "1"});
  } else {
    command.insert(command.end(), {"-ngl", "0"});
  }
  if (request.depth > 0) {
    command.insert(command.end(), {"-d", absl::StrCat("0,", request.depth)});
  }
  return command;
}

absl::StatusOr<std::vector<PeerResult>> RunLlamaBench(const PeerRequest& request) {
  const absl::StatusOr<std::string> json = RunAndRead(LlamaBenchCommand(request));
  if (!json.ok()) return Annotate(json.status(), "--peer-llama-bench");
  return ParseLlamaBench(*json);
}

}  // namespace millrace
