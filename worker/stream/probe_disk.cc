#include "worker/stream/probe_disk.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/status_macros.h"
#include "worker/stream/disk_reader.h"

namespace millrace {
namespace {

constexpr int64_t kMostReads = 32;  // of DiskReaderOptions::max_read
constexpr absl::Duration kLongest = absl::Seconds(8);

// Reads of equal size, as far apart as the file allows.
std::vector<DiskRange> ReadsOf(Bytes file, Bytes read) {
  std::vector<DiskRange> reads;
  const int64_t size = std::min(read.count(), file.count());
  const int64_t count = std::clamp<int64_t>(file.count() / size, 1, kMostReads);
  for (int64_t i = 0; i < count; ++i) {
    reads.push_back({0, Bytes((file.count() - size) / count * i), Bytes(size)});
  }
  return reads;
}

}  // namespace

absl::StatusOr<Bandwidth> ProbeDisk(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  if (info.st_size == 0) return absl::DataLossError(absl::StrCat(path, ": the file is empty"));
  const DiskReaderOptions options;
  MILLRACE_ASSIGN_OR_RETURN(auto reader, DiskReader::Create(options, {path}, NoPageLocker()));
  const std::vector<DiskRange> reads = ReadsOf(Bytes(info.st_size), options.max_read);
  const absl::Time begin = absl::Now();
  size_t asked = 0;
  Bytes read;
  for (size_t taken = 0; taken < reads.size() && absl::Now() - begin < kLongest; ++taken) {
    while (asked < reads.size() && reader->Request(reads[asked])) ++asked;
    absl::Status status = reader->Take(kLongest).status();
    if (!status.ok()) return Annotate(status, absl::StrCat("measuring the disk of ", path));
    read += reads[taken].size;
    reader->GiveBack();
  }
  const double seconds = std::max(1e-6, absl::ToDoubleSeconds(absl::Now() - begin));
  return Bandwidth::BytesPerSecond(static_cast<double>(read.count()) / seconds);
}

}  // namespace millrace
