// Shared by tests of host weights: tensors in a real file, mapped.
#ifndef MILLRACE_TESTS_WORKER_STREAM_HOST_FILES_H_
#define MILLRACE_TESTS_WORKER_STREAM_HOST_FILES_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/stream/host_weights.h"
#include "worker/weights/file_reader.h"

namespace millrace {

// Bytes in a file in `folder`, mapped; deleted when it dies.
class MappedBytes {
 public:
  MappedBytes(const std::string& folder, const std::vector<uint8_t>& bytes) {
    static int files = 0;
    path_ = absl::StrCat(folder, "/millrace_stream_test.", getpid(), ".", files++);
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    auto opened = OpenMappedFile(path_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (opened.ok()) file_ = *std::move(opened);
  }
  ~MappedBytes() { std::remove(path_.c_str()); }

  const std::string& path() const { return path_; }
  HostBytes bytes() const { return file_->Map(); }

  // [rows, cols] of `dtype` at `offset`. The spec lives as long as this.
  HostWeight Weight(const std::string& name, DType dtype, int64_t rows, int64_t cols,
                    size_t offset) {
    auto spec = std::make_unique<TensorSpec>();
    spec->name = name;
    spec->dtype = dtype;
    spec->shape = {rows, cols};
    spec->offset = Bytes(static_cast<int64_t>(offset));
    spec->size = RowBytes(dtype, cols) * rows;
    HostWeight weight;
    weight.tensor = {spec.get(), bytes().subspan(offset, static_cast<size_t>(spec->size.count()))};
    weight.path = path_;
    weight.offset = spec->offset;
    specs_.push_back(std::move(spec));
    return weight;
  }

 private:
  std::string path_;
  std::unique_ptr<FileReader> file_;
  std::vector<std::unique_ptr<TensorSpec>> specs_;
};

}  // namespace millrace

#endif  // MILLRACE_TESTS_WORKER_STREAM_HOST_FILES_H_
