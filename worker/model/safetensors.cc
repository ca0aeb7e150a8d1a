#include "worker/model/safetensors.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "worker/model/byte_cursor.h"
#include "worker/model/checked_math.h"
#include "worker/model/json_file.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own bound
constexpr size_t kMaxDimensions = 8;
constexpr char kSingle[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

bool Exists(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0;
}

absl::StatusOr<DType> ReadDType(const JsonFields& entry) {
  MILLRACE_ASSIGN_OR_RETURN(std::optional<std::string> name, entry.String("dtype"));
  if (!name) return entry.Error("dtype", "is missing");
  if (*name == "F32") return DType::kF32;
  if (*name == "F16") return DType::kF16;
  if (*name == "BF16") return DType::kBF16;
  return entry.Unimplemented(
      "dtype", absl::StrCat("'", *name, "' is not supported, only F32, F16 and BF16"));
}

// An array of non-negative integers.
absl::StatusOr<std::vector<int64_t>> ReadIntegers(const JsonFields& entry, absl::string_view key) {
  const json* array = entry.Find(key);
  if (array == nullptr) return entry.Error(key, "is missing");
  if (!array->is_array()) return entry.Error(key, "is not an array");
  std::vector<int64_t> out;
  for (const json& v : *array) {
    if (!v.is_number_unsigned() || v.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
      return entry.Error(key, absl::StrCat("holds ", v.dump(), ", not a size"));
    }
    out.push_back(static_cast<int64_t>(v.get<uint64_t>()));
  }
  return out;
}

// Sets everything; `offset` is relative to the data section.
absl::StatusOr<RawTensor> ReadEntry(const JsonFields& entry, const std::string& name) {
  RawTensor tensor;
  tensor.name = name;
  MILLRACE_ASSIGN_OR_RETURN(tensor.dtype, ReadDType(entry));
  MILLRACE_ASSIGN_OR_RETURN(tensor.shape, ReadIntegers(entry, "shape"));
  if (tensor.shape.empty() || tensor.shape.size() > kMaxDimensions) {
    return entry.Error("shape", absl::StrCat("has ", tensor.shape.size(), " dimensions, not 1 to ",
                                             kMaxDimensions));
  }
  std::optional<int64_t> bytes = Info(tensor.dtype).block_bytes;
  for (int64_t extent : tensor.shape) {
    if (extent == 0) return entry.Error("shape", "has a dimension of 0");
    if (bytes) bytes = CheckedMultiply(*bytes, extent);
  }
  if (!bytes) return entry.Error("shape", "the product of its dimensions overflows");
  MILLRACE_ASSIGN_OR_RETURN(std::vector<int64_t> range, ReadIntegers(entry, "data_offsets"));
  if (range.size() != 2 || range[1] < range[0] || range[1] - range[0] != *bytes) {
    return entry.Error("data_offsets", absl::StrCat("is not a range of the ", *bytes,
                                                    " bytes that type and shape need"));
  }
  tensor.offset = Bytes(range[0]);
  tensor.size = Bytes(*bytes);
  return tensor;
}

// Offsets become file offsets; the tensors must cover [data_start, file_size) exactly once.
absl::Status PlaceTensors(const std::string& file, int64_t data_start, int64_t file_size,
                          std::vector<RawTensor>& tensors) {
  std::sort(tensors.begin(), tensors.end(),
            [](const RawTensor& a, const RawTensor& b) { return a.offset < b.offset; });
  int64_t covered = 0;
  for (RawTensor& t : tensors) {
    if (t.offset.count() != covered) {
      return absl::DataLossError(absl::StrCat(
          file, ": tensor '", t.name, "': 'data_offsets': starts at ", t.offset.count(), ", ",
          t.offset.count() < covered ? "inside another tensor" : "after a gap", " (", covered,
          " bytes are taken before it)"));
    }
    if (t.size.count() > file_size - data_start - covered) {
      return absl::DataLossError(absl::StrCat(
          file, ": tensor '", t.name, "': 'data_offsets': ", "passes the end of the file (",
          file_size, " bytes): the file is cut short or damaged"));
    }
    covered += t.size.count();
    t.offset += Bytes(data_start);
    if (t.offset.count() % Info(t.dtype).block_bytes != 0) {
      return absl::UnimplementedError(
          absl::StrCat(file, ": tensor '", t.name,
                       "': starts at an odd address for its type; save the model "
                       "again with a current safetensors library, which aligns its data"));
    }
  }
  if (data_start + covered != file_size) {
    return absl::DataLossError(absl::StrCat(file, ": ", file_size - data_start - covered,
                                            " bytes after the last tensor belong to none"));
  }
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsModel> OpenSharded(const std::string& directory) {
  const std::string index_path = absl::StrCat(directory, "/", kIndex);
  MILLRACE_ASSIGN_OR_RETURN(json index, ReadJsonObject(index_path));
  const JsonFields fields(index_path, index);
  MILLRACE_ASSIGN_OR_RETURN(std::optional<JsonFields> map, fields.Object("weight_map"));
  if (!map) return fields.Error("weight_map", "is missing");
  std::map<std::string, size_t> listed;  // file name -> tensors the index puts there
  for (const auto& [name, file] : index["weight_map"].items()) {
    if (!file.is_string()) return map->Error(name, "is not a file name");
    const std::string shard = file.get<std::string>();
    if (shard.empty() || absl::StrContains(shard, "/") || !absl::EndsWith(shard, ".safetensors")) {
      return map->Error(name, absl::StrCat("'", shard, "' is not a .safetensors file name"));
    }
    ++listed[shard];
  }
  SafetensorsModel model;
  for (const auto& [shard, count] : listed) {
    const std::string path = absl::StrCat(directory, "/", shard);
    auto reader = OpenMappedFile(path);
    if (!reader.ok())
      return Annotate(reader.status(), absl::StrCat("shard listed in ", index_path));
    MILLRACE_ASSIGN_OR_RETURN(std::vector<RawTensor> tensors, ParseSafetensors(**reader));
    for (RawTensor& t : tensors) {
      const auto entry = index["weight_map"].find(t.name);
      if (entry == index["weight_map"].end() || *entry != shard) {
        return absl::DataLossError(absl::StrCat(path, ": tensor '", t.name,
                                                "': the index does not list it in this shard"));
      }
      t.file = static_cast<int>(model.files.size());
      model.tensors.push_back(std::move(t));
    }
    if (tensors.size() != count) {
      return absl::DataLossError(absl::StrCat(path, ": holds ", tensors.size(), " of the ", count,
                                              " tensors that the index lists in it"));
    }
    model.files.push_back(*std::move(reader));
  }
  return model;
}

}  // namespace

absl::StatusOr<std::vector<RawTensor>> ParseSafetensors(const FileReader& reader) {
  const std::string& file = reader.name();
  ByteCursor cursor(reader.Map());
  auto length = cursor.Read<uint64_t>("header length");
  if (!length.ok()) return Annotate(length.status(), file);
  if (*length > kMaxHeaderBytes || *length > cursor.left()) {
    return absl::DataLossError(
        absl::StrCat(file, ": header length: ", *length, " is out of range (", cursor.left(),
                     " bytes follow, at most ", kMaxHeaderBytes, " are allowed)"));
  }
  auto header = cursor.Take(*length, "header");
  if (!header.ok()) return Annotate(header.status(), file);
  MILLRACE_ASSIGN_OR_RETURN(
      json table, ParseJsonObject(absl::StrCat(file, ": header"),
                                  absl::string_view(reinterpret_cast<const char*>(header->data()),
                                                    header->size())));
  std::vector<RawTensor> tensors;
  for (const auto& [name, entry] : table.items()) {
    if (name == "__metadata__") continue;
    const std::string where = absl::StrCat(file, ": tensor '", name, "'");
    if (!entry.is_object()) return absl::DataLossError(absl::StrCat(where, ": is not an object"));
    MILLRACE_ASSIGN_OR_RETURN(RawTensor tensor, ReadEntry(JsonFields(where, entry), name));
    tensors.push_back(std::move(tensor));
  }
  MILLRACE_RETURN_IF_ERROR(
      PlaceTensors(file, static_cast<int64_t>(cursor.position()), reader.size().count(), tensors));
  return tensors;
}

absl::StatusOr<SafetensorsModel> OpenSafetensors(const std::string& directory) {
  if (Exists(absl::StrCat(directory, "/", kIndex))) return OpenSharded(directory);
  const std::string path = absl::StrCat(directory, "/", kSingle);
  if (!Exists(path)) {
    return absl::NotFoundError(absl::StrCat(directory, ": holds neither ", kSingle, " nor ", kIndex,
                                            "; is it a Hugging Face model folder?"));
  }
  SafetensorsModel model;
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<FileReader> reader, OpenMappedFile(path));
  MILLRACE_ASSIGN_OR_RETURN(model.tensors, ParseSafetensors(*reader));
  model.files.push_back(std::move(reader));
  return model;
}

}  // namespace millrace
