#include "worker/stream/host_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14
#endif

namespace millrace {
namespace {

constexpr size_t kPiece = size_t{64} << 20;  // bytes that a thread brings in at a time

size_t PageSize() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

// Reads one byte of every page: where the system cannot do it at once.
void Touch(HostBytes pages) {
  volatile unsigned char sink = 0;
  for (size_t at = 0; at < pages.size(); at += PageSize()) {
    sink = sink + static_cast<unsigned char>(pages[at]);
  }
}

absl::Status BringIn(HostBytes pages) {
  void* begin = const_cast<std::byte*>(pages.data());
  (void)madvise(begin, pages.size(), MADV_HUGEPAGE);  // most file systems refuse: no matter
  (void)madvise(begin, pages.size(), MADV_WILLNEED);
  while (madvise(begin, pages.size(), MADV_POPULATE_READ) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    if (errno == EINVAL || errno == ENOSYS) {
      Touch(pages);
      break;
    }
    return absl::DataLossError(
        absl::StrCat("bringing weights into memory: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

// What several threads share.
struct Shared {
  std::vector<HostBytes> pieces;
  std::atomic<size_t> next{0};
  absl::Mutex mu;
  Bytes done ABSL_GUARDED_BY(mu);
  absl::Status status ABSL_GUARDED_BY(mu);
};

void BringInPieces(Shared& shared, Bytes all, const HostProgress& progress) {
  for (size_t i; (i = shared.next++) < shared.pieces.size();) {
    const absl::Status status = BringIn(shared.pieces[i]);
    absl::MutexLock lock(&shared.mu);
    if (shared.status.ok()) shared.status = status;
    if (!shared.status.ok()) return;
    shared.done += Bytes(static_cast<int64_t>(shared.pieces[i].size()));
    if (progress) progress(shared.done, all);
  }
}

}  // namespace

std::vector<HostBytes> WholePages(absl::Span<const HostBytes> ranges) {
  const auto page = static_cast<uintptr_t>(PageSize());
  std::vector<std::pair<uintptr_t, uintptr_t>> pages;
  for (const HostBytes& r : ranges) {
    const auto begin = reinterpret_cast<uintptr_t>(r.data());
    if (r.empty()) continue;
    pages.emplace_back(begin / page * page, (begin + r.size() + page - 1) / page * page);
  }
  std::sort(pages.begin(), pages.end());
  std::vector<std::pair<uintptr_t, uintptr_t>> joined;
  for (const auto& p : pages) {
    if (!joined.empty() && p.first <= joined.back().second) {
      joined.back().second = std::max(joined.back().second, p.second);
    } else {
      joined.push_back(p);
    }
  }
  std::vector<HostBytes> out;
  for (const auto& [begin, end] : joined) {
    out.emplace_back(reinterpret_cast<const std::byte*>(begin), end - begin);
  }
  return out;
}

absl::Status FaultIn(absl::Span<const HostBytes> ranges, int threads,
                     const HostProgress& progress) {
  Shared shared;
  Bytes all;
  for (const HostBytes& r : WholePages(ranges)) {
    all += Bytes(static_cast<int64_t>(r.size()));
    for (size_t at = 0; at < r.size(); at += kPiece) shared.pieces.push_back(r.subspan(at, kPiece));
  }
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; ++i) {
    helpers.emplace_back([&] { BringInPieces(shared, all, progress); });
  }
  BringInPieces(shared, all, progress);
  for (std::thread& t : helpers) t.join();
  absl::MutexLock lock(&shared.mu);
  return shared.status;
}

PageLocker NoPageLocker() {
  return [](HostBytes, PageAccess) -> absl::StatusOr<std::shared_ptr<void>> {
    return std::shared_ptr<void>();
  };
}

absl::StatusOr<AnonymousMemory> AnonymousMemory::Create(Bytes size) {
  AnonymousMemory memory;
  const size_t bytes =
      (static_cast<size_t>(size.count()) + PageSize() - 1) / PageSize() * PageSize();
  if (bytes == 0) return memory;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("asking for ", FormatBytes(size), " of memory: ", std::strerror(errno)));
  }
  (void)madvise(p, bytes, MADV_HUGEPAGE);
  memory.data_ = std::unique_ptr<std::byte, Unmap>(static_cast<std::byte*>(p), Unmap(bytes));
  return memory;
}

void AnonymousMemory::Unmap::operator()(std::byte* p) const { (void)munmap(p, size); }

}  // namespace millrace
