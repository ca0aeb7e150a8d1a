#include "tools/synth.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "tools/synth_blocks.h"
#include "tools/synth_shapes.h"
#include "tools/synth_spec.h"
#include "tools/synth_vocabulary.h"
#include "worker/model/gguf_writer.h"

namespace millrace {
namespace {

constexpr int64_t kChunkBytes = 4 << 20;  // upper bound; whole blocks

absl::Status FileError(int error, const std::string& path, absl::string_view what) {
  const std::string message = absl::StrCat(path, ": ", what, ": ", std::strerror(error));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    default:
      return absl::DataLossError(message);
  }
}

// A file under a temporary name: Commit gives it its own, else the destructor removes it.
class PendingFile {
 public:
  PendingFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  ~PendingFile() {
    if (fd_ >= 0) close(fd_);
    if (!committed_) unlink(TemporaryName(path_).c_str());
  }
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  static std::string TemporaryName(const std::string& path) { return path + ".partial"; }

  absl::Status Reserve(int64_t size) {
    if (fallocate(fd_, 0, 0, size) != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
      return FileError(errno, path_, absl::StrCat("cannot reserve ", FormatBytes(Bytes(size))));
    }
    if (ftruncate(fd_, size) != 0) return FileError(errno, path_, "cannot set the size");
    return absl::OkStatus();
  }

  // Thread-safe.
  absl::Status WriteAt(int64_t offset, absl::Span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = pwrite(fd_, bytes.data(), bytes.size(), offset);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return FileError(n == 0 ? ENOSPC : errno, path_, "cannot write");
      bytes.remove_prefix(n);
      offset += n;
    }
    return absl::OkStatus();
  }

  absl::Status Commit() {
    const int fd = std::exchange(fd_, -1);
    if (close(fd) != 0) return FileError(errno, path_, "cannot close");
    if (std::rename(TemporaryName(path_).c_str(), path_.c_str()) != 0) {
      return FileError(errno, path_, "cannot rename the finished file");
    }
    committed_ = true;
    return absl::OkStatus();
  }

 private:
  std::string path_;
  int fd_;
  bool committed_ = false;
};

// One piece of one tensor: whole blocks, generated from its own seed.
struct Chunk {
  DType dtype{};
  double mean = 0, sigma = 0;
  uint64_t seed = 0;
  int64_t offset = 0, size = 0;  // in the file, bytes
};

struct Layout {
  GgufWriter writer;
  std::vector<Chunk> chunks;
  std::vector<float> rope_factors;
  int64_t rope_offset = 0;
};

void SetMetadata(const SynthShape& s, const SynthQuant& quant, GgufWriter& w) {
  auto key = [&](absl::string_view name) { return absl::StrCat(s.architecture, ".", name); };
  w.SetString("general.architecture", s.architecture);
  w.SetString("general.name", absl::StrCat("synthetic ", s.name));
  w.SetUint32("general.file_type", quant.file_type);
  w.SetUint32("general.quantization_version", 2);
  w.SetUint32(key("block_count"), s.layers);
  w.SetUint32(key("context_length"), s.context);
  w.SetUint32(key("embedding_length"), s.d_model);
  w.SetUint32(key("feed_forward_length"), s.d_ff);
  w.SetUint32(key("attention.head_count"), s.heads);
  w.SetUint32(key("attention.head_count_kv"), s.kv_heads);
  w.SetUint32(key("attention.key_length"), s.head_dim);
  w.SetUint32(key("attention.value_length"), s.head_dim);
  w.SetFloat32(key("attention.layer_norm_rms_epsilon"), s.norm_epsilon);
  w.SetFloat32(key("rope.freq_base"), s.rope_base);
  w.SetUint32(key("rope.dimension_count"), s.head_dim);
  w.SetUint32(key("vocab_size"), s.vocab);
  SetSyntheticVocabulary(s.vocab, s.pre_tokenizer, w);
}

void AddChunks(const SynthTensor& tensor, const RawTensor& placed, uint64_t seed,
               std::vector<Chunk>& chunks) {
  Chunk chunk{
      placed.dtype, 0.0, 1.0 / std::sqrt(static_cast<double>(placed.shape.back())), 0, 0, 0};
  if (placed.shape.size() == 1) {
    const bool bias = tensor.role == TensorRole::kAttnQBias ||
                      tensor.role == TensorRole::kAttnKBias ||
                      tensor.role == TensorRole::kAttnVBias;
    chunk.mean = bias ? 0.0 : 1.0;
    chunk.sigma = 0.05;
  }
  SplitMix seeds(seed);
  const int64_t block = Info(placed.dtype).block_bytes;
  const int64_t step = kChunkBytes / block * block;
  for (int64_t at = 0; at < placed.size.count(); at += step) {
    chunk.seed = seeds.Next();
    chunk.offset = placed.offset.count() + at;
    chunk.size = std::min(step, placed.size.count() - at);
    chunks.push_back(chunk);
  }
}

Layout MakeLayout(const SynthShape& shape, const SynthQuant& quant, uint64_t seed) {
  Layout layout;
  SetMetadata(shape, quant, layout.writer);
  const std::vector<SynthTensor> tensors = SynthTensors(shape);
  AddSynthTensors(shape, quant, layout.writer);
  const std::vector<RawTensor> placed = layout.writer.Tensors();
  SplitMix seeds(seed);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t tensor_seed = seeds.Next();
    if (tensors[i].role == TensorRole::kRopeFactors) {
      layout.rope_factors = SynthRopeFactors(shape);
      layout.rope_offset = placed[i].offset.count();
    } else {
      AddChunks(tensors[i], placed[i], tensor_seed, layout.chunks);
    }
  }
  return layout;
}

// Generates and writes all chunks with `threads` threads. Progress counts bytes written.
absl::Status WriteChunks(const std::vector<Chunk>& chunks, int threads, Bytes total,
                         const std::function<void(Bytes, Bytes)>& on_progress, PendingFile& file) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  absl::Status status;  // guarded by mutex, as `done`
  Bytes done;
  auto work = [&] {
    std::vector<std::byte> buffer;
    for (size_t i = next++; i < chunks.size(); i = next++) {
      const Chunk& c = chunks[i];
      buffer.resize(c.size);
      FillRandomBlocks(c.dtype, c.mean, c.sigma, c.seed, absl::MakeSpan(buffer));
      const absl::Status written = file.WriteAt(c.offset, buffer);
      std::lock_guard<std::mutex> lock(mutex);
      if (!written.ok() || !status.ok()) {
        status.Update(written);
        return;
      }
      done += Bytes(c.size);
      if (on_progress) on_progress(done, total);
    }
  };
  std::vector<std::thread> pool;
  for (int t = 1; t < threads; ++t) pool.emplace_back(work);
  work();
  for (std::thread& t : pool) t.join();
  return status;
}

}  // namespace

std::vector<std::string> SynthShapeNames() {
  std::vector<std::string> names;
  for (const SynthShape& s : SynthShapes()) names.emplace_back(s.name);
  return names;
}

std::vector<std::string> SynthQuantNames() {
  std::vector<std::string> names;
  for (const SynthQuant& q : SynthQuants()) names.emplace_back(q.name);
  return names;
}

absl::Status WriteSyntheticModel(const SynthOptions& options) {
  MILLRACE_ASSIGN_OR_RETURN(SynthShape shape, FindSynthShape(options.shape));
  MILLRACE_ASSIGN_OR_RETURN(SynthQuant quant, FindSynthQuant(options.quant));
  if (options.path.empty()) return absl::InvalidArgumentError("the output path is empty");
  const Layout layout = MakeLayout(shape, quant, options.seed);
  const std::string header = layout.writer.Header();
  const int64_t size = layout.writer.FileSize();

  const std::string temporary = PendingFile::TemporaryName(options.path);
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return FileError(errno, temporary, "cannot create");
  PendingFile file(options.path, fd);
  MILLRACE_RETURN_IF_ERROR(file.Reserve(size));
  MILLRACE_RETURN_IF_ERROR(file.WriteAt(
      0, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(header.data()), header.size())));
  if (!layout.rope_factors.empty()) {
    MILLRACE_RETURN_IF_ERROR(file.WriteAt(
        layout.rope_offset,
        absl::MakeConstSpan(reinterpret_cast<const std::byte*>(layout.rope_factors.data()),
                            layout.rope_factors.size() * sizeof(float))));
  }
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int threads = std::clamp(options.threads > 0 ? options.threads : cores, 1, 64);
  MILLRACE_RETURN_IF_ERROR(
      WriteChunks(layout.chunks, threads, Bytes(size), options.on_progress, file));
  return file.Commit();
}

}  // namespace millrace
