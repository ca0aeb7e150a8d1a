#include "planner/precision_words.h"

#include <algorithm>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "planner/plan_words.h"
#include "proto/stored_types.h"

namespace millrace {
namespace {

constexpr size_t kWidth = 100;

// By tensor, so that one of two blocks counts once.
std::map<std::string, DType> TypesByTensor(const PlacementPlan& plan) {
  std::map<std::string, DType> types;
  for (const StoredType& type : StoredTypesOf(plan)) types.emplace(type.tensor, type.dtype);
  return types;
}

// A name around its first number: "blk.", 12, ".attn_v.weight".
struct NameParts {
  std::string before, after;
  int number = -1;  // -1: it has none
};

NameParts PartsOf(const std::string& name) {
  const size_t begin = name.find_first_of("0123456789");
  if (begin == std::string::npos) return {name, "", -1};
  size_t end = begin;
  int number = 0;
  for (; end < name.size() && name[end] >= '0' && name[end] <= '9' && end - begin < 6; ++end) {
    number = 10 * number + (name[end] - '0');
  }
  return {name.substr(0, begin), name.substr(end), number};
}

// "0-3, 7" of sorted numbers.
std::string Ranges(const std::vector<int>& numbers) {
  std::vector<std::string> runs;
  for (size_t i = 0; i < numbers.size();) {
    size_t end = i + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
    runs.push_back(end - i == 1 ? absl::StrCat(numbers[i])
                                : absl::StrCat(numbers[i], "-", numbers[end - 1]));
    i = end;
  }
  return absl::StrJoin(runs, ", ");
}

}  // namespace

std::string RenderPrecision(const PlacementPlan& plan) {
  std::map<DType, int> counts;
  for (const auto& [_, dtype] : TypesByTensor(plan)) ++counts[dtype];
  if (counts.empty()) return "";
  std::vector<std::string> parts;
  for (DType dtype : kQuantizeTypes) {
    const int count = counts[dtype];
    if (count == 0) continue;
    const bool first = parts.empty();
    parts.push_back(
        absl::StrCat(count, first ? (count == 1 ? " tensor converted" : " tensors converted") : "",
                     " to ", DTypeName(dtype)));
  }
  return WrapAt(
             absl::StrCat("precision: ", absl::StrJoin(parts, ", "), "; all others as in the file"),
             kWidth) +
         "\n";
}

std::string RenderStoredTypes(const PlacementPlan& plan) {
  // Per type and name around the number, the numbers.
  std::map<DType, std::map<std::pair<std::string, std::string>, std::vector<int>>> by_type;
  for (const auto& [name, dtype] : TypesByTensor(plan)) {
    const NameParts parts = PartsOf(name);
    by_type[dtype][{parts.before, parts.after}].push_back(parts.number);
  }
  if (by_type.empty()) return "";
  std::string out = "\nconverted when loaded\n";
  for (DType dtype : kQuantizeTypes) {
    for (auto& [around, numbers] : by_type[dtype]) {
      std::sort(numbers.begin(), numbers.end());
      const bool none = numbers.front() < 0;
      absl::StrAppend(
          &out, "  ",
          WrapAt(absl::StrCat(DTypeName(dtype), "  ", around.first, none ? "" : "N", around.second,
                              none ? "" : absl::StrCat(", N = ", Ranges(numbers))),
                 kWidth - 2),
          "\n");
    }
  }
  return out;
}

}  // namespace millrace
