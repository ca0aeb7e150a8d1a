#include "proto/bytes.h"

#include <array>
#include <cmath>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace millrace {
namespace {

struct Unit {
  absl::string_view name;
  double factor;
};

constexpr std::array<Unit, 14> kUnits = {{
    {"", 1.0},
    {"b", 1.0},
    {"k", 1024.0},
    {"kib", 1024.0},
    {"kb", 1e3},
    {"m", 1048576.0},
    {"mib", 1048576.0},
    {"mb", 1e6},
    {"g", 1073741824.0},
    {"gib", 1073741824.0},
    {"gb", 1e9},
    {"t", 1099511627776.0},
    {"tib", 1099511627776.0},
    {"tb", 1e12},
}};

}  // namespace

absl::StatusOr<Bytes> ParseBytes(absl::string_view text) {
  absl::string_view rest = absl::StripAsciiWhitespace(text);
  size_t digits = rest.find_first_not_of("0123456789.");
  if (digits == absl::string_view::npos) digits = rest.size();
  double number = 0;
  const std::string unit = absl::AsciiStrToLower(absl::StripAsciiWhitespace(rest.substr(digits)));
  if (digits > 0 && absl::SimpleAtod(rest.substr(0, digits), &number)) {
    for (const Unit& u : kUnits) {
      if (u.name != unit) continue;
      const double bytes = std::floor(number * u.factor);
      if (bytes >= 9.2e18) break;
      return Bytes(static_cast<int64_t>(bytes));
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "'", text, "' is not a size: write a number and a unit, e.g. 24GiB, 512MiB, 800MB"));
}

std::string FormatBytes(Bytes b) {
  const double v = static_cast<double>(b.count());
  const double a = std::fabs(v);
  if (a < 1024) return absl::StrCat(b.count(), " B");
  static constexpr std::array<const char*, 4> kNames = {"KiB", "MiB", "GiB", "TiB"};
  double scaled = v / 1024;
  size_t i = 0;
  while (std::fabs(scaled) >= 1000 && i + 1 < kNames.size()) {
    scaled /= 1024;
    ++i;
  }
  const int decimals = std::fabs(scaled) >= 100 ? 0 : std::fabs(scaled) >= 10 ? 1 : 2;
  return absl::StrFormat("%.*f %s", decimals, scaled, kNames[i]);
}

std::string FormatBandwidth(Bandwidth w) {
  const double v = w.bytes_per_second();
  if (v >= 1e12) return absl::StrFormat("%.2f TB/s", v / 1e12);
  if (v >= 1e9) return absl::StrFormat("%.1f GB/s", v / 1e9);
  return absl::StrFormat("%.1f MB/s", v / 1e6);
}

}  // namespace millrace
