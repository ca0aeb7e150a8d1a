#include "worker/weights/file_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

absl::Status CopyFrom(absl::Span<const std::byte> bytes, const std::string& name, Bytes offset,
                      absl::Span<std::byte> out) {
  const int64_t size = static_cast<int64_t>(bytes.size());
  const int64_t want = static_cast<int64_t>(out.size());
  if (offset.count() < 0 || offset.count() > size || want > size - offset.count()) {
    return absl::OutOfRangeError(absl::StrCat(name, ": read of ", want, " bytes at offset ",
                                              offset.count(), " passes the end (", size,
                                              " bytes)"));
  }
  if (want > 0) std::memcpy(out.data(), bytes.data() + offset.count(), out.size());
  return absl::OkStatus();
}

// An open file, closed by its destructor.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

class MappedFile : public FileReader {
 public:
  MappedFile(std::string name, void* address, size_t size)
      : name_(std::move(name)), address_(address), size_(size) {}
  ~MappedFile() override { munmap(address_, size_); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& name() const override { return name_; }
  Bytes size() const override { return Bytes(static_cast<int64_t>(size_)); }
  absl::Span<const std::byte> Map() const override {
    return {static_cast<const std::byte*>(address_), size_};
  }
  // Copies from the map: a file cut short by someone else after Open raises SIGBUS here as it does
  // for every reader of the map.
  absl::Status ReadAt(Bytes offset, absl::Span<std::byte> out) const override {
    return CopyFrom(Map(), name_, offset, out);
  }
  void ForgetPages(Bytes offset, Bytes size) const override {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t begin = (static_cast<size_t>(offset.count()) + page - 1) / page * page;
    const size_t end = static_cast<size_t>((offset + size).count()) / page * page;
    if (begin < end && end <= size_) {
      (void)madvise(static_cast<std::byte*>(address_) + begin, end - begin, MADV_DONTNEED);
    }
  }

 private:
  std::string name_;
  void* address_;
  size_t size_;
};

class MemoryReader : public FileReader {
 public:
  MemoryReader(std::string name, absl::Span<const std::byte> bytes)
      : name_(std::move(name)), bytes_(bytes) {}
  const std::string& name() const override { return name_; }
  Bytes size() const override { return Bytes(static_cast<int64_t>(bytes_.size())); }
  absl::Span<const std::byte> Map() const override { return bytes_; }
  absl::Status ReadAt(Bytes offset, absl::Span<std::byte> out) const override {
    return CopyFrom(bytes_, name_, offset, out);
  }

 private:
  std::string name_;
  absl::Span<const std::byte> bytes_;
};

absl::Status ErrnoStatus(int error, const std::string& path, absl::string_view what) {
  const std::string message = absl::StrCat(path, ": ", what, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(message);
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::DataLossError(message);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileReader>> OpenMappedFile(const std::string& path) {
  Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return ErrnoStatus(errno, path, "cannot open");
  struct stat info {};
  if (fstat(file.get(), &info) != 0) return ErrnoStatus(errno, path, "cannot stat");
  if (!S_ISREG(info.st_mode)) {
    return absl::DataLossError(absl::StrCat(path, ": not a regular file"));
  }
  if (info.st_size == 0) return absl::DataLossError(absl::StrCat(path, ": the file is empty"));
  const size_t size = static_cast<size_t>(info.st_size);
  void* address = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) return ErrnoStatus(errno, path, "cannot map");
  return std::make_unique<MappedFile>(path, address, size);
}

std::unique_ptr<FileReader> ReadMemory(std::string name, absl::Span<const std::byte> bytes) {
  return std::make_unique<MemoryReader>(std::move(name), bytes);
}

}  // namespace millrace
