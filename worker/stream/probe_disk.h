// How fast a disk gives weights that do not fit memory.
#ifndef MILLRACE_WORKER_STREAM_PROBE_DISK_H_
#define MILLRACE_WORKER_STREAM_PROBE_DISK_H_

#include <string>

#include "absl/status/statusor.h"
#include "proto/bytes.h"

namespace millrace {

// Reads up to 512 MiB of the file, spread over it, the way DiskReader reads weights: past the page
// cache where the file system can. A second or less on a disk worth using, never more than ten.
// NotFound and the like name the path; DeadlineExceeded a disk below 2 MB/s.
absl::StatusOr<Bandwidth> ProbeDisk(const std::string& path);

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_PROBE_DISK_H_
