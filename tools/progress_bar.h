// ProgressBar: done of total with rate and time left, on stderr.
#ifndef MILLRACE_TOOLS_PROGRESS_BAR_H_
#define MILLRACE_TOOLS_PROGRESS_BAR_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace millrace {

// On a terminal one line that is redrawn ten times a second; elsewhere a plain line every 10 s and
// none for what is over sooner. Not thread-safe.
class ProgressBar {
 public:
  enum class Unit : uint8_t { kBytes, kCount };
  ProgressBar(std::string what, Unit unit);
  ProgressBar(std::string what, Unit unit, bool terminal);  // for tests
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void Update(int64_t done, int64_t total, const std::string& note = "");
  void Finish();  // clears the line

 private:
  const std::string what_;
  const Unit unit_;
  const bool terminal_;
  const absl::Time start_;
  absl::Time last_drawn_;
  bool on_screen_ = false;
};

// "loading [#####-----]  50%  3.1 GiB of 6.2 GiB  1.2 GB/s  3 s left"
std::string ProgressLine(const std::string& what, ProgressBar::Unit unit, int64_t done,
                         int64_t total, absl::Duration elapsed);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_PROGRESS_BAR_H_
