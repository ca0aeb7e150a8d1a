#include "tools/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "proto/bytes.h"

namespace millrace {
namespace {
constexpr int kWidth = 24;  // characters of the bar
constexpr absl::Duration kRedraw = absl::Milliseconds(100);
constexpr absl::Duration kPlainLine = absl::Seconds(10);
}  // namespace

std::string ProgressLine(const std::string& what, ProgressBar::Unit unit, int64_t done,
                         int64_t total, absl::Duration elapsed) {
  const double part =
      total > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0) : 0;
  const int filled = static_cast<int>(part * kWidth);
  const double seconds = absl::ToDoubleSeconds(elapsed);
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  const bool bytes = unit == ProgressBar::Unit::kBytes;
  std::string line = absl::StrFormat(
      "%s [%s%s] %3.0f%%  %s of %s  %s", what, std::string(filled, '#'),
      std::string(kWidth - filled, '-'), std::floor(part * 100),
      bytes ? FormatBytes(Bytes(done)) : absl::StrCat(done),
      bytes ? FormatBytes(Bytes(total)) : absl::StrCat(total),
      bytes ? FormatBandwidth(Bandwidth::BytesPerSecond(rate)) : absl::StrFormat("%.1f/s", rate));
  if (rate > 0 && done < total) {
    absl::StrAppendFormat(&line, "  %.0f s left",
                          std::ceil(static_cast<double>(total - done) / rate));
  }
  return line;
}

ProgressBar::ProgressBar(std::string what, Unit unit)
    : ProgressBar(std::move(what), unit, isatty(STDERR_FILENO) == 1) {}

ProgressBar::ProgressBar(std::string what, Unit unit, bool terminal)
    : what_(std::move(what)),
      unit_(unit),
      terminal_(terminal),
      start_(absl::Now()),
      last_drawn_(start_) {}

ProgressBar::~ProgressBar() { Finish(); }

void ProgressBar::Update(int64_t done, int64_t total, const std::string& note) {
  const absl::Time now = absl::Now();
  if (now - last_drawn_ < (terminal_ ? kRedraw : kPlainLine)) return;
  last_drawn_ = now;
  std::string line = ProgressLine(what_, unit_, done, total, now - start_);
  if (!note.empty()) absl::StrAppend(&line, "  ", note);
  std::fprintf(stderr, terminal_ ? "\r%s\x1b[K" : "%s\n", line.c_str());
  std::fflush(stderr);
  on_screen_ = terminal_;
}

void ProgressBar::Finish() {
  if (!on_screen_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  on_screen_ = false;
}

}  // namespace millrace
