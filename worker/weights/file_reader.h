// FileReader: the seam between weights and storage. Faults are injected here in tests.
#ifndef MILLRACE_WORKER_WEIGHTS_FILE_READER_H_
#define MILLRACE_WORKER_WEIGHTS_FILE_READER_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/bytes.h"

namespace millrace {

// Read-only bytes with a name. Thread-safe.
class FileReader {
 public:
  virtual ~FileReader() = default;
  virtual const std::string& name() const = 0;  // for messages: the path as the user gave it
  virtual Bytes size() const = 0;
  // The whole file as memory, valid as long as the reader. Pages fault in when touched.
  virtual absl::Span<const std::byte> Map() const = 0;
  // Copies [offset, offset + out.size()) into `out`. OutOfRange past the end; DataLoss on I/O
  // error.
  virtual absl::Status ReadAt(Bytes offset, absl::Span<std::byte> out) const = 0;
  // Lets go of the whole pages of a range: the process no longer counts them, a touch brings them again.
  virtual void ForgetPages(Bytes offset, Bytes size) const {}
};

// mmap of a file on disk, PROT_READ and MAP_SHARED. NotFound, PermissionDenied or DataLoss (empty,
// not a regular file) name the path.
absl::StatusOr<std::unique_ptr<FileReader>> OpenMappedFile(const std::string& path);

// A view of memory that outlives the reader (the embedded model, tests).
std::unique_ptr<FileReader> ReadMemory(std::string name, absl::Span<const std::byte> bytes);

}  // namespace millrace

#endif  // MILLRACE_WORKER_WEIGHTS_FILE_READER_H_
