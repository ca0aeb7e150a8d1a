#include "worker/model/gguf_file.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "worker/model/byte_cursor.h"
#include "worker/model/checked_math.h"

namespace millrace {
namespace {

constexpr uint32_t kMagic = 0x46554747;         // "GGUF", little-endian
constexpr uint32_t kMagicSwapped = 0x47475546;  // the same, big-endian
constexpr int64_t kDefaultAlignment = 32;
constexpr int64_t kMaxAlignment = int64_t{1} << 30;
constexpr uint64_t kMaxNameBytes = 65535;  // keys; tensor names stay far below
constexpr uint32_t kMaxDimensions = 4;
// Of a file that is not all here: what its table says must stay far from overflow in sums.
constexpr int64_t kLargestFile = int64_t{16} << 40;
constexpr absl::string_view kCutShort = ": the file is cut short or damaged";
// The least that one entry can take in the file: bounds lying counts.
constexpr uint64_t kLeastKeyBytes = 8 + 1 + 4 + 1;             // length, name, type, value
constexpr uint64_t kLeastTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;  // length, name, n, dim, type, offset

// ggml's types that millrace does not compute with, for the message.
absl::string_view ForeignTypeName(uint32_t ggml_type) {
  switch (ggml_type) {
    case 9:
      return "q8_1";
    case 15:
      return "q8_K";
    case 16:
      return "iq2_xxs";
    case 17:
      return "iq2_xs";
    case 18:
      return "iq3_xxs";
    case 19:
      return "iq1_s";
    case 20:
      return "iq4_nl";
    case 21:
      return "iq3_s";
    case 22:
      return "iq2_s";
    case 23:
      return "iq4_xs";
    case 24:
      return "i8";
    case 25:
      return "i16";
    case 26:
      return "i32";
    case 27:
      return "i64";
    case 28:
      return "f64";
    case 29:
      return "iq1_m";
    case 34:
      return "tq1_0";
    case 35:
      return "tq2_0";
    case 39:
      return "mxfp4";
    case 40:
      return "nvfp4";
    default:
      return "not a known ggml type";
  }
}

struct Header {
  uint32_t version = 0;
  uint64_t tensors = 0;
  uint64_t keys = 0;
};

absl::StatusOr<Header> ReadHeader(ByteCursor& cursor) {
  MILLRACE_ASSIGN_OR_RETURN(uint32_t magic, cursor.Read<uint32_t>("magic"));
  if (magic == kMagicSwapped) {
    return absl::DataLossError(
        "magic: this is a big-endian GGUF file; convert it to little-endian");
  }
  if (magic != kMagic)
    return absl::DataLossError("magic: not a GGUF file (no \"GGUF\" at its start)");
  Header header;
  MILLRACE_ASSIGN_OR_RETURN(header.version, cursor.Read<uint32_t>("version"));
  if (header.version != 0 && (header.version & 0xffff) == 0) {
    return absl::DataLossError(
        "version: this is a big-endian GGUF file; convert it to little-endian");
  }
  if (header.version != 2 && header.version != 3) {
    return absl::DataLossError(absl::StrCat("version: GGUF version ", header.version,
                                            " is not supported, only 2 and 3: convert the model "
                                            "again with a newer tool"));
  }
  MILLRACE_ASSIGN_OR_RETURN(header.tensors, cursor.Read<uint64_t>("tensor count"));
  MILLRACE_ASSIGN_OR_RETURN(header.keys, cursor.Read<uint64_t>("metadata count"));
  if (header.tensors > cursor.left() / kLeastTensorBytes) {
    return absl::DataLossError(absl::StrCat("tensor count: ", header.tensors,
                                            " tensors cannot be listed in the ", cursor.left(),
                                            " bytes that are left", kCutShort));
  }
  if (header.keys > cursor.left() / kLeastKeyBytes) {
    return absl::DataLossError(absl::StrCat("metadata count: ", header.keys,
                                            " keys cannot be listed in the ", cursor.left(),
                                            " bytes that are left", kCutShort));
  }
  return header;
}

absl::Status ReadMetadata(ByteCursor& cursor, uint64_t keys, GgufMetadata& metadata) {
  for (uint64_t i = 0; i < keys; ++i) {
    MILLRACE_ASSIGN_OR_RETURN(absl::string_view key,
                              cursor.ReadString(absl::StrCat("name of metadata key ", i)));
    if (key.empty() || key.size() > kMaxNameBytes) {
      return absl::DataLossError(absl::StrCat("name of metadata key ", i, ": its length is ",
                                              key.size(), ", not 1 to ", kMaxNameBytes));
    }
    const std::string field = absl::StrCat("key '", key, "'");
    MILLRACE_ASSIGN_OR_RETURN(uint32_t type, cursor.Read<uint32_t>(field));
    MILLRACE_ASSIGN_OR_RETURN(GgufValue value, ReadGgufValue(cursor, type, field));
    if (!metadata.Insert(key, value)) {
      return absl::DataLossError(absl::StrCat(field, ": appears twice"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ReadAlignment(const GgufMetadata& metadata) {
  const GgufValue* value = metadata.Find("general.alignment");
  if (value == nullptr) return kDefaultAlignment;
  const auto* number = std::get_if<uint64_t>(&value->data);
  if (number == nullptr || value->type != GgufType::kUint32) {
    return absl::DataLossError(absl::StrCat("key 'general.alignment': is of type ",
                                            GgufTypeName(value->type), ", expected uint32"));
  }
  const uint64_t alignment = *number;
  if (alignment < 8 || alignment > kMaxAlignment || (alignment & (alignment - 1)) != 0) {
    return absl::DataLossError(absl::StrCat("key 'general.alignment': ", alignment,
                                            " is not a power of two from 8 to ", kMaxAlignment));
  }
  return static_cast<int64_t>(alignment);
}

// Dimensions come innermost first; `shape` is outermost first. Sets shape and size.
absl::Status ReadShape(ByteCursor& cursor, const std::string& field, RawTensor& tensor) {
  MILLRACE_ASSIGN_OR_RETURN(uint32_t dimensions, cursor.Read<uint32_t>(field));
  if (dimensions == 0 || dimensions > kMaxDimensions) {
    return absl::DataLossError(
        absl::StrCat(field, ": has ", dimensions, " dimensions, not 1 to ", kMaxDimensions));
  }
  int64_t elements = 1;
  for (uint32_t d = 0; d < dimensions; ++d) {
    MILLRACE_ASSIGN_OR_RETURN(uint64_t extent, cursor.Read<uint64_t>(field));
    if (extent == 0 || extent > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return absl::DataLossError(
          absl::StrCat(field, ": dimension ", d, " is ", extent, ", out of range"));
    }
    const std::optional<int64_t> product = CheckedMultiply(elements, static_cast<int64_t>(extent));
    if (!product) {
      return absl::DataLossError(absl::StrCat(field, ": the product of its dimensions overflows"));
    }
    elements = *product;
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(extent));
  }
  return absl::OkStatus();
}

absl::Status SetSize(const std::string& field, RawTensor& tensor) {
  const DTypeInfo& info = Info(tensor.dtype);
  const int64_t cols = tensor.shape.back();
  if (cols % info.block_elements != 0) {
    return absl::DataLossError(absl::StrCat(field, ": rows of ", cols,
                                            " elements are not whole blocks of ", info.name, " (",
                                            info.block_elements, " elements)"));
  }
  int64_t blocks = cols / info.block_elements;
  for (size_t d = 0; d + 1 < tensor.shape.size(); ++d) blocks *= tensor.shape[d];
  const std::optional<int64_t> bytes = CheckedMultiply(blocks, info.block_bytes);
  if (!bytes) return absl::DataLossError(absl::StrCat(field, ": its size in bytes overflows"));
  tensor.size = Bytes(*bytes);
  return absl::OkStatus();
}

// Sets everything; `offset` is still relative to the data section.
absl::StatusOr<RawTensor> ReadTensorEntry(ByteCursor& cursor, uint64_t index, int64_t alignment) {
  RawTensor tensor;
  MILLRACE_ASSIGN_OR_RETURN(absl::string_view name,
                            cursor.ReadString(absl::StrCat("name of tensor ", index)));
  if (name.empty() || name.size() > kMaxNameBytes) {
    return absl::DataLossError(absl::StrCat("name of tensor ", index, ": its length is ",
                                            name.size(), ", not 1 to ", kMaxNameBytes));
  }
  tensor.name = std::string(name);
  const std::string field = absl::StrCat("tensor '", name, "'");
  MILLRACE_RETURN_IF_ERROR(ReadShape(cursor, field, tensor));
  MILLRACE_ASSIGN_OR_RETURN(uint32_t type, cursor.Read<uint32_t>(field));
  const std::optional<DType> dtype = DTypeFromGgml(type);
  if (!dtype) {
    return absl::UnimplementedError(absl::StrCat(
        field, ": its type ", type, " (", ForeignTypeName(type), ") is not supported by millrace"));
  }
  tensor.dtype = *dtype;
  MILLRACE_RETURN_IF_ERROR(SetSize(field, tensor));
  MILLRACE_ASSIGN_OR_RETURN(uint64_t offset, cursor.Read<uint64_t>(field));
  if (offset > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return absl::DataLossError(absl::StrCat(field, ": offset ", offset, " is out of range"));
  }
  if (offset % static_cast<uint64_t>(alignment) != 0) {
    return absl::DataLossError(absl::StrCat(field, ": offset ", offset,
                                            " is not a multiple of the alignment ", alignment));
  }
  tensor.offset = Bytes(static_cast<int64_t>(offset));
  return tensor;
}

absl::Status PassesEnd(const RawTensor& tensor, int64_t data_offset, int64_t file_size,
                       absl::string_view more) {
  return absl::DataLossError(absl::StrCat(
      "tensor '", tensor.name, "': ", tensor.size.count(), " bytes at data offset ", data_offset,
      " pass the end of the file (", file_size, " bytes)", kCutShort, more));
}

// What to do about a file of which `end` bytes are wanted.
std::string Missing(int64_t end, int64_t file_size) {
  return absl::StrCat(
      "; ", end - file_size, " bytes (", FormatBytes(Bytes(end - file_size)),
      ") are missing: copy or download it again. Its metadata is whole: `millrace plan` and "
      "`millrace inspect` need no more");
}

// Turns offsets into file offsets and checks that every tensor lies alone, and inside the file
// unless only metadata is asked for. Sets whole_size.
absl::Status PlaceTensors(int64_t data_start, int64_t alignment, int64_t file_size,
                          GgufExtent extent, GgufFile& file) {
  std::vector<const RawTensor*> order;
  int64_t whole = 0;
  const RawTensor* past_end = nullptr;  // the first in the table's order
  for (RawTensor& t : file.tensors) {
    const std::optional<int64_t> start = CheckedAdd(data_start, t.offset.count());
    const std::optional<int64_t> end = start ? CheckedAdd(*start, t.size.count()) : std::nullopt;
    if (!end || *end > std::max(file_size, kLargestFile)) {
      return PassesEnd(t, t.offset.count(), file_size, "");
    }
    if (*end > file_size && past_end == nullptr) past_end = &t;
    whole = std::max(whole, *end);
    t.offset = Bytes(*start);
    order.push_back(&t);
  }
  if (past_end != nullptr && extent == GgufExtent::kWhole) {
    return PassesEnd(*past_end, past_end->offset.count() - data_start, file_size,
                     Missing(whole, file_size));
  }
  file.whole_size =
      Bytes(past_end == nullptr ? file_size : (whole + alignment - 1) / alignment * alignment);
  std::sort(order.begin(), order.end(),
            [](const RawTensor* a, const RawTensor* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->offset + order[i - 1]->size > order[i]->offset) {
      return absl::DataLossError(absl::StrCat("tensor '", order[i]->name, "': overlaps tensor '",
                                              order[i - 1]->name, "'"));
    }
  }
  return absl::OkStatus();
}

absl::Status Parse(const FileReader& reader, GgufExtent extent, GgufFile& file) {
  ByteCursor cursor(reader.Map());
  MILLRACE_ASSIGN_OR_RETURN(Header header, ReadHeader(cursor));
  file.version = header.version;
  MILLRACE_RETURN_IF_ERROR(ReadMetadata(cursor, header.keys, file.metadata));
  MILLRACE_ASSIGN_OR_RETURN(int64_t alignment, ReadAlignment(file.metadata));
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < header.tensors; ++i) {
    MILLRACE_ASSIGN_OR_RETURN(RawTensor tensor, ReadTensorEntry(cursor, i, alignment));
    if (!names.insert(tensor.name).second) {
      return absl::DataLossError(absl::StrCat("tensor '", tensor.name, "': appears twice"));
    }
    file.tensors.push_back(std::move(tensor));
  }
  const int64_t table_end = static_cast<int64_t>(cursor.position());
  const int64_t data_start = (table_end + alignment - 1) / alignment * alignment;
  return PlaceTensors(data_start, alignment, reader.size().count(), extent, file);
}

}  // namespace

absl::StatusOr<GgufFile> ParseGguf(const FileReader& reader, GgufExtent extent) {
  GgufFile file{0, GgufMetadata(reader.name()), {}, Bytes(0)};
  MILLRACE_RETURN_IF_ERROR(Annotate(Parse(reader, extent, file), reader.name()));
  return file;
}

}  // namespace millrace
