// Bytes and Bandwidth: strong types for sizes and rates, in the manner of absl::Duration.
// Arithmetic is checked nowhere here: values are bounded by the parsers that make them
// (ParseBytes refuses what passes 2^63-1). Thread-compatible value types.
#ifndef MILLRACE_PROTO_BYTES_H_
#define MILLRACE_PROTO_BYTES_H_

#include <compare>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace millrace {

// A number of bytes. May be negative as a difference ("short by").
class Bytes {
 public:
  constexpr Bytes() = default;
  constexpr explicit Bytes(int64_t count) : count_(count) {}

  constexpr int64_t count() const { return count_; }
  constexpr double gib() const { return static_cast<double>(count_) / (1024.0 * 1024.0 * 1024.0); }

  constexpr auto operator<=>(const Bytes&) const = default;
  constexpr Bytes& operator+=(Bytes o) {
    count_ += o.count_;
    return *this;
  }
  constexpr Bytes& operator-=(Bytes o) {
    count_ -= o.count_;
    return *this;
  }
  constexpr Bytes& operator*=(int64_t n) {
    count_ *= n;
    return *this;
  }
  friend constexpr Bytes operator+(Bytes a, Bytes b) { return Bytes(a.count_ + b.count_); }
  friend constexpr Bytes operator-(Bytes a, Bytes b) { return Bytes(a.count_ - b.count_); }
  friend constexpr Bytes operator*(Bytes a, int64_t n) { return Bytes(a.count_ * n); }
  friend constexpr Bytes operator*(int64_t n, Bytes a) { return Bytes(a.count_ * n); }

 private:
  int64_t count_ = 0;
};

// Bytes per second.
class Bandwidth {
 public:
  constexpr Bandwidth() = default;
  static constexpr Bandwidth BytesPerSecond(double v) { return Bandwidth(v); }
  static constexpr Bandwidth GBPerSecond(double v) { return Bandwidth(v * 1e9); }

  constexpr double bytes_per_second() const { return value_; }
  constexpr double gb_per_second() const { return value_ / 1e9; }
  constexpr auto operator<=>(const Bandwidth&) const = default;
  friend constexpr Bandwidth operator*(Bandwidth b, double f) { return Bandwidth(b.value_ * f); }

 private:
  constexpr explicit Bandwidth(double v) : value_(v) {}
  double value_ = 0;
};

// Time to move `b` at rate `w`; infinite when the rate is zero.
inline absl::Duration operator/(Bytes b, Bandwidth w) {
  if (w.bytes_per_second() <= 0) return absl::InfiniteDuration();
  return absl::Seconds(static_cast<double>(b.count()) / w.bytes_per_second());
}

// Reads "24GiB", "1.5 GiB", "512MiB", "64KB", "1000" (bytes). Case of the unit does not matter;
// K, M, G, T alone mean KiB, MiB, GiB, TiB. InvalidArgument names the text and the accepted units.
absl::StatusOr<Bytes> ParseBytes(absl::string_view text);

// "23.4 GiB", "512 MiB", "96 B": three significant digits, binary units.
std::string FormatBytes(Bytes b);

// "55.0 GB/s", "7.2 MB/s": decimal units, as bandwidths are quoted.
std::string FormatBandwidth(Bandwidth w);

inline namespace literals {
constexpr Bytes operator""_B(unsigned long long n) { return Bytes(static_cast<int64_t>(n)); }
constexpr Bytes operator""_KiB(unsigned long long n) {
  return Bytes(static_cast<int64_t>(n) << 10);
}
constexpr Bytes operator""_MiB(unsigned long long n) {
  return Bytes(static_cast<int64_t>(n) << 20);
}
constexpr Bytes operator""_GiB(unsigned long long n) {
  return Bytes(static_cast<int64_t>(n) << 30);
}
}  // namespace literals

}  // namespace millrace

#endif  // MILLRACE_PROTO_BYTES_H_
