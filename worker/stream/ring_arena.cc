#include "worker/stream/ring_arena.h"

#include "proto/status_macros.h"

namespace millrace {

std::optional<Bytes> RingArena::Take(Bytes bytes) {
  MILLRACE_CHECK(bytes > Bytes(0));
  Bytes begin;
  if (pieces_.empty()) {
    if (bytes > size_) return std::nullopt;
  } else {
    const Bytes oldest = pieces_.front().begin, free = pieces_.back().end;
    const bool wrapped = pieces_.back().begin < oldest;
    const Bytes end = wrapped ? oldest : size_;
    if (free + bytes <= end) {
      begin = free;
    } else if (wrapped || bytes > oldest) {
      return std::nullopt;
    }
  }
  pieces_.push_back({begin, begin + bytes});
  return begin;
}

void RingArena::FreeOldest() {
  MILLRACE_CHECK(!pieces_.empty());
  pieces_.pop_front();
}

void RingArena::FreeNewest() {
  MILLRACE_CHECK(!pieces_.empty());
  pieces_.pop_back();
}

}  // namespace millrace
