// Greedy pair merging over a text, shared by both kinds of tokenizer: a linked list of symbols and a
// heap of candidate pairs, O(n log n) in the length of the text.
#ifndef MILLRACE_WORKER_MODEL_MERGE_LIST_H_
#define MILLRACE_WORKER_MODEL_MERGE_LIST_H_

#include <cstdint>
#include <optional>
#include <queue>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace millrace {

// Priority of merging two neighbours, larger is better; nullopt: they do not merge.
using PairPriority =
    absl::FunctionRef<std::optional<double>(absl::string_view left, absl::string_view right)>;

// Merges neighbouring symbols, best priority first, leftmost among equals, until none merges.
// `symbols` are consecutive views of one text.
inline std::vector<absl::string_view> MergeSymbols(std::vector<absl::string_view> symbols,
                                                   PairPriority priority) {
  struct Node {
    absl::string_view text;  // empty: merged into its left neighbour
    int previous, next;
  };
  struct Pair {
    double priority;
    int left, right;
    size_t size;  // of both when queued: tells a stale entry
    bool operator<(const Pair& o) const {
      return priority != o.priority ? priority < o.priority : left > o.left;
    }
  };
  const int n = static_cast<int>(symbols.size());
  std::vector<Node> nodes(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) nodes[i] = {symbols[i], i - 1, i + 1 < n ? i + 1 : -1};
  std::priority_queue<Pair> queue;
  auto add = [&](int left, int right) {
    if (left < 0 || right < 0) return;
    const auto p = priority(nodes[left].text, nodes[right].text);
    if (p) queue.push({*p, left, right, nodes[left].text.size() + nodes[right].text.size()});
  };
  for (int i = 0; i + 1 < n; ++i) add(i, i + 1);
  while (!queue.empty()) {
    const Pair best = queue.top();
    queue.pop();
    Node& left = nodes[best.left];
    Node& right = nodes[best.right];
    if (left.text.empty() || right.text.empty() ||
        left.text.size() + right.text.size() != best.size) {
      continue;
    }
    left.text = absl::string_view(left.text.data(), best.size);
    right.text = {};
    left.next = right.next;
    if (right.next >= 0) nodes[right.next].previous = best.left;
    add(left.previous, best.left);
    add(best.left, left.next);
  }
  std::vector<absl::string_view> out;
  for (int i = n > 0 ? 0 : -1; i >= 0; i = nodes[i].next) out.push_back(nodes[i].text);
  return out;
}

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_MERGE_LIST_H_
