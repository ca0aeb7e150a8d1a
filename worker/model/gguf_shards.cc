#include "worker/model/gguf_shards.h"

#include <unordered_map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "proto/status_macros.h"
#include "worker/model/gguf_file.h"

namespace millrace {
namespace {

constexpr int64_t kMaxShards = 99999;  // five digits

bool ConsumeFiveDigits(absl::string_view* text, int* number) {
  if (text->size() < 5) return false;
  const absl::string_view digits = text->substr(text->size() - 5);
  for (char c : digits) {
    if (c < '0' || c > '9') return false;
  }
  text->remove_suffix(5);
  return absl::SimpleAtoi(digits, number);
}

// split.count; 0 when the file is not part of a split.
absl::StatusOr<int> SplitCount(const GgufMetadata& metadata) {
  MILLRACE_ASSIGN_OR_RETURN(std::optional<int64_t> count,
                            metadata.Integer("split.count", 0, kMaxShards));
  return static_cast<int>(count.value_or(0));
}

absl::Status CheckShard(const GgufMetadata& metadata, int index, int count) {
  MILLRACE_ASSIGN_OR_RETURN(int stated, SplitCount(metadata));
  if (stated != count) {
    return metadata.Error("split.count",
                          absl::StrCat("is ", stated, ", but the model has ", count, " shards"));
  }
  MILLRACE_ASSIGN_OR_RETURN(std::optional<int64_t> number,
                            metadata.Integer("split.no", 0, kMaxShards));
  if (!number) return metadata.Error("split.no", "is missing");
  if (*number != index) {
    return metadata.Error(
        "split.no", absl::StrCat("is ", *number, ", but this is shard ", index + 1, " of ", count,
                                 ", so it should be ", index));
  }
  return absl::OkStatus();
}

absl::Status CheckTotals(const std::vector<GgufFile>& shards) {
  size_t total = 0;
  std::unordered_map<std::string, size_t> owner;
  for (size_t i = 0; i < shards.size(); ++i) {
    total += shards[i].tensors.size();
    for (const RawTensor& t : shards[i].tensors) {
      auto [it, fresh] = owner.emplace(t.name, i);
      if (!fresh) {
        return absl::DataLossError(absl::StrCat(shards[i].metadata.file(), ": tensor '", t.name,
                                                "': is already in shard ", it->second + 1));
      }
    }
  }
  for (const GgufFile& shard : shards) {
    MILLRACE_ASSIGN_OR_RETURN(std::optional<int64_t> stated,
                              shard.metadata.Integer("split.tensors.count", 0, INT32_MAX));
    if (stated && *stated != static_cast<int64_t>(total)) {
      return shard.metadata.Error(
          "split.tensors.count",
          absl::StrCat("is ", *stated, ", but the shards hold ", total, " tensors"));
    }
  }
  return absl::OkStatus();
}

GgufModelFiles Join(std::vector<GgufFile> shards, std::vector<std::unique_ptr<FileReader>> files) {
  GgufModelFiles model{std::move(shards[0].metadata), {}, std::move(files), {}};
  for (size_t i = 0; i < shards.size(); ++i) {
    model.whole_sizes.push_back(shards[i].whole_size);
    for (RawTensor& t : shards[i].tensors) {
      t.file = static_cast<int>(i);
      model.tensors.push_back(std::move(t));
    }
  }
  return model;
}

absl::StatusOr<GgufModelFiles> OpenShards(const ShardName& name, GgufExtent extent) {
  std::vector<GgufFile> shards;
  std::vector<std::unique_ptr<FileReader>> files;
  for (int i = 0; i < name.count; ++i) {
    const std::string path = ShardPath(name, i + 1);
    auto reader = OpenMappedFile(path);
    if (!reader.ok()) {
      return Annotate(reader.status(),
                      absl::StrCat("shard ", i + 1, " of ", name.count, " of the model"));
    }
    MILLRACE_ASSIGN_OR_RETURN(GgufFile shard, ParseGguf(**reader, extent));
    MILLRACE_RETURN_IF_ERROR(CheckShard(shard.metadata, i, name.count));
    shards.push_back(std::move(shard));
    files.push_back(*std::move(reader));
  }
  MILLRACE_RETURN_IF_ERROR(CheckTotals(shards));
  return Join(std::move(shards), std::move(files));
}

}  // namespace

std::optional<ShardName> ParseShardName(absl::string_view path) {
  ShardName name;
  if (!absl::ConsumeSuffix(&path, ".gguf") || !ConsumeFiveDigits(&path, &name.count) ||
      !absl::ConsumeSuffix(&path, "-of-") || !ConsumeFiveDigits(&path, &name.number) ||
      !absl::ConsumeSuffix(&path, "-") || name.number < 1 || name.number > name.count) {
    return std::nullopt;
  }
  name.stem = std::string(path);
  return name;
}

std::string ShardPath(const ShardName& name, int number) {
  return absl::StrFormat("%s-%05d-of-%05d.gguf", name.stem, number, name.count);
}

absl::StatusOr<GgufModelFiles> OpenGguf(std::unique_ptr<FileReader> reader, GgufExtent extent) {
  MILLRACE_ASSIGN_OR_RETURN(GgufFile file, ParseGguf(*reader, extent));
  MILLRACE_ASSIGN_OR_RETURN(int count, SplitCount(file.metadata));
  if (count > 1) {
    return file.metadata.Error("split.count",
                               absl::StrCat("is ", count,
                                            ": this is one shard of several, but "
                                            "its name does not end in -0000N-of-0000M.gguf"));
  }
  std::vector<GgufFile> shards;
  std::vector<std::unique_ptr<FileReader>> files;
  shards.push_back(std::move(file));
  files.push_back(std::move(reader));
  return Join(std::move(shards), std::move(files));
}

absl::StatusOr<GgufModelFiles> OpenGguf(const std::string& path, GgufExtent extent) {
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<FileReader> reader, OpenMappedFile(path));
  const std::optional<ShardName> name = ParseShardName(path);
  if (!name || name->count == 1) return OpenGguf(std::move(reader), extent);
  // The file that was named decides first: its own damage is reported before another's.
  MILLRACE_ASSIGN_OR_RETURN(GgufFile file, ParseGguf(*reader, extent));
  MILLRACE_RETURN_IF_ERROR(CheckShard(file.metadata, name->number - 1, name->count));
  return OpenShards(*name, extent);
}

}  // namespace millrace
