// RingArena: which bytes of a ring are taken. Pieces are contiguous and of any size, taken in order
// at one end and freed at the other; what a piece does not fit into at the ring's end is skipped.
#ifndef MILLRACE_WORKER_STREAM_RING_ARENA_H_
#define MILLRACE_WORKER_STREAM_RING_ARENA_H_

#include <deque>
#include <optional>

#include "proto/bytes.h"

namespace millrace {

// Bookkeeping only. Not thread-safe.
class RingArena {
 public:
  explicit RingArena(Bytes size) : size_(size) {}

  // Where the next piece of `bytes` > 0 begins; nothing where there is no room now. An empty ring
  // has room for any piece up to its size.
  std::optional<Bytes> Take(Bytes bytes);
  void FreeOldest();
  void FreeNewest();

  size_t pieces() const { return pieces_.size(); }
  Bytes size() const { return size_; }

 private:
  struct Piece {
    Bytes begin, end;
  };
  Bytes size_;
  std::deque<Piece> pieces_;  // oldest first
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_RING_ARENA_H_
