// InterruptWatch: calls back once when the user presses Ctrl-C.
#ifndef MILLRACE_TOOLS_STOP_WATCH_H_
#define MILLRACE_TOOLS_STOP_WATCH_H_

#include <atomic>
#include <functional>
#include <thread>

namespace millrace {

// Blocks SIGINT in the calling thread and those it starts later: make it before they exist.
class InterruptWatch {
 public:
  InterruptWatch();
  ~InterruptWatch();
  // From now on. `on_interrupt` runs on the watch's thread, once; a second SIGINT ends the process.
  void Start(std::function<void()> on_interrupt);

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace millrace

#endif  // MILLRACE_TOOLS_STOP_WATCH_H_
