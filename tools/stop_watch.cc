#include "tools/stop_watch.h"

#include <csignal>
#include <ctime>
#include <utility>

namespace millrace {
namespace {

sigset_t InterruptSet() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  return set;
}

constexpr timespec kPoll = {0, 50'000'000};  // 50 ms

}  // namespace

InterruptWatch::InterruptWatch() {
  const sigset_t set = InterruptSet();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

void InterruptWatch::Start(std::function<void()> on_interrupt) {
  thread_ = std::thread([this, callback = std::move(on_interrupt)] {
    const sigset_t set = InterruptSet();
    while (!stop_.load()) {
      if (sigtimedwait(&set, nullptr, &kPoll) != SIGINT) continue;
      pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
      callback();
      return;
    }
  });
}

InterruptWatch::~InterruptWatch() {
  stop_.store(true);
  if (thread_.joinable()) thread_.join();
}

}  // namespace millrace
