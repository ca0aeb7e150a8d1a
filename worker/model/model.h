// Model: an opened model file or folder: what it is (ModelSpec), its vocabulary, its weights in
// place.
#ifndef MILLRACE_WORKER_MODEL_MODEL_H_
#define MILLRACE_WORKER_MODEL_MODEL_H_

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/model_spec.h"
#include "worker/model/vocabulary.h"
#include "worker/weights/file_reader.h"

namespace millrace {

// The reference that names the embedded demo model (also what an empty reference means).
inline constexpr char kDemoModel[] = "quill-7m";

// Immutable after Open; thread-safe. Tensor bytes (where all weights are here) are views of the mapped files, never copies, and
// live as long as the Model.
class Model {
 public:
  // `reference`: a GGUF file (any shard of a sharded one), a Hugging Face directory, kDemoModel, or
  // empty for the same. Only metadata is read; weights are mapped and fault in when touched.
  // NotFound: no such file. DataLoss: a bad file, the message names file and field.
  // Unimplemented: an architecture, tensor type or tokenizer that millrace does not know, named.
  static absl::StatusOr<std::shared_ptr<const Model>> Open(const std::string& reference);

  // As Open, but of a GGUF file's weights any part may be missing: then the spec is that of the whole
  // file but for rope factors that are not there (no plan depends on them), and the model can be
  // planned for and looked at, not run.
  static absl::StatusOr<std::shared_ptr<const Model>> OpenMetadata(const std::string& reference);

  Model(std::string reference, ModelSpec spec, Vocabulary vocabulary,
        std::vector<std::unique_ptr<FileReader>> files, Bytes missing = Bytes(0));

  // Of the files, at their ends; zero unless opened by OpenMetadata.
  Bytes missing() const { return missing_; }
  // The same model with other types of some tensors: those of `held` with a file_dtype, whose bytes are
  // all of the reader that `converted` names for their index. They lie on no disk.
  std::shared_ptr<const Model> WithTensors(
      ModelSpec held, const std::map<int, std::shared_ptr<const FileReader>>& converted) const;

  const std::string& reference() const { return reference_; }
  const ModelSpec& spec() const { return spec_; }
  const Vocabulary& vocabulary() const { return *vocabulary_; }
  // The tensor's bytes as they lie in the file (or are held, WithTensors): row-major, spec().tensors[index].size long, of
  // type spec().tensors[index].dtype. Norms and biases (1-D) may be F32, F16 or BF16: Hugging Face
  // checkpoints store them as the matrices are; whoever computes with them widens them.
  absl::Span<const std::byte> TensorBytes(int index) const;
  // Lets go of the tensor's pages of the file: they come again when touched. For tensors that were read
  // once.
  void ForgetPages(int index) const;
  const FileReader& file(int index) const { return *files_[index]; }
  // Of the file that holds the tensor; empty for the embedded model and for converted tensors, which
  // lie on no disk.
  std::string PathOf(int index) const;

 private:
  Model() = default;

  std::string reference_;
  ModelSpec spec_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::vector<std::shared_ptr<const FileReader>> files_;  // as spec_.files, then of converted tensors
  Bytes missing_;
};

// The vocabulary alone: also of files that hold nothing else or end before their weights do, and of
// architectures that millrace cannot run. Errors as Model::Open; DataLoss when there is no tokenizer.
absl::StatusOr<Vocabulary> ReadVocabulary(const std::string& reference);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_MODEL_H_
