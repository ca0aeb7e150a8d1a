#include "absl/strings/str_cat.h"
#include "proto/convert.h"
#include "proto/field_check.h"

namespace millrace {
namespace {

// The enums of proto/*.h count from 0 in the same order; the messages' from 1 (0 = unset).
template <typename Wire, typename Value>
Wire EnumToProto(Value value) {
  return static_cast<Wire>(static_cast<int>(value) + 1);
}
template <typename Value>
Value EnumFromProto(FieldCheck& check, const std::string& field, int wire, Value last) {
  return static_cast<Value>(check.Int32(field, wire, 1, static_cast<int>(last) + 1) - 1);
}

static_assert(static_cast<int>(DType::kQ2_K) + 1 == v1::DTYPE_Q2_K);
static_assert(static_cast<int>(DType::kQ4_K) + 1 == v1::DTYPE_Q4_K);
static_assert(static_cast<int>(TensorRole::kFfnDown) + 1 == v1::TENSOR_ROLE_FFN_DOWN);
static_assert(static_cast<int>(TensorRole::kAttnOutput) + 1 == v1::TENSOR_ROLE_ATTN_OUTPUT);
static_assert(static_cast<int>(RopeStyle::kHalfSplit) + 1 == v1::ROPE_STYLE_HALF_SPLIT);

TensorSpec TensorFromProto(FieldCheck& check, const std::string& at, const v1::TensorSpec& wire,
                           int layers, int files) {
  TensorSpec tensor;
  tensor.name = check.Name(at + ".name", wire.name());
  tensor.role = EnumFromProto(check, at + ".role", wire.role(), TensorRole::kFfnDown);
  tensor.layer = check.Int32(at + ".layer", wire.layer(), -1, layers - 1);
  tensor.dtype = EnumFromProto(check, at + ".dtype", wire.dtype(), DType::kQ2_K);
  if (wire.shape_size() < 1 || wire.shape_size() > 2) {
    check.Refuse(at + ".shape", "has ", wire.shape_size(), " dimensions, not 1 or 2");
  }
  for (int64_t d : wire.shape()) {
    tensor.shape.push_back(check.Int(at + ".shape", d, 1, int64_t{1} << 31));
  }
  tensor.file = check.Int32(at + ".file", wire.file(), 0, files - 1);
  tensor.offset = check.Size(at + ".offset", wire.offset());
  tensor.size = check.Size(at + ".size", wire.size());
  return tensor;
}

RopeSpec RopeFromProto(FieldCheck& check, const v1::RopeSpec& wire) {
  const std::string at = "ModelSpec.rope";
  RopeSpec rope;
  rope.style = EnumFromProto(check, at + ".style", wire.style(), RopeStyle::kHalfSplit);
  rope.dims = check.Int32(at + ".dims", wire.dims(), 0, 1 << 16);
  rope.base = static_cast<float>(check.NonNegative(at + ".base", wire.base()));
  rope.linear_factor =
      static_cast<float>(check.NonNegative(at + ".linear_factor", wire.linear_factor()));
  const int factors = wire.frequency_factors_size();
  if (factors != 0 && factors != rope.dims / 2) {
    check.Refuse(at + ".frequency_factors", "has ", factors,
                 " values, not dims / 2 = ", rope.dims / 2);
  }
  rope.frequency_factors.assign(wire.frequency_factors().begin(), wire.frequency_factors().end());
  return rope;
}

LayerSpec LayerFromProto(FieldCheck& check, const std::string& at, const v1::LayerSpec& wire) {
  LayerSpec layer;
  layer.heads = check.Int32(at + ".heads", wire.heads(), 1, 1 << 16);
  layer.kv_heads = check.Int32(at + ".kv_heads", wire.kv_heads(), 1, layer.heads);
  layer.head_dim = check.Int32(at + ".head_dim", wire.head_dim(), 1, 1 << 16);
  layer.d_ff = check.Int32(at + ".d_ff", wire.d_ff(), 1);
  return layer;
}

}  // namespace

v1::DType ToProto(DType dtype) { return EnumToProto<v1::DType>(dtype); }

absl::StatusOr<DType> FromProto(v1::DType dtype) {
  FieldCheck check;
  const DType value = EnumFromProto(check, "dtype", dtype, DType::kQ2_K);
  if (!check.ok()) return check.status();
  return value;
}

v1::ModelSpec ToProto(const ModelSpec& model) {
  v1::ModelSpec wire;
  wire.set_architecture(model.architecture);
  wire.set_name(model.name);
  wire.set_vocab(model.vocab);
  wire.set_d_model(model.d_model);
  wire.set_context_length(model.context_length);
  wire.set_norm_epsilon(model.norm_epsilon);
  wire.set_tied_output(model.tied_output);
  v1::RopeSpec& rope = *wire.mutable_rope();
  rope.set_style(EnumToProto<v1::RopeStyle>(model.rope.style));
  rope.set_dims(model.rope.dims);
  rope.set_base(model.rope.base);
  rope.set_linear_factor(model.rope.linear_factor);
  rope.mutable_frequency_factors()->Add(model.rope.frequency_factors.begin(),
                                        model.rope.frequency_factors.end());
  for (const LayerSpec& layer : model.layers) {
    v1::LayerSpec& out = *wire.add_layers();
    out.set_heads(layer.heads);
    out.set_kv_heads(layer.kv_heads);
    out.set_head_dim(layer.head_dim);
    out.set_d_ff(layer.d_ff);
  }
  for (const TensorSpec& tensor : model.tensors) {
    v1::TensorSpec& out = *wire.add_tensors();
    out.set_name(tensor.name);
    out.set_role(EnumToProto<v1::TensorRole>(tensor.role));
    out.set_layer(tensor.layer);
    out.set_dtype(ToProto(tensor.dtype));
    out.mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
    out.set_file(tensor.file);
    out.set_offset(tensor.offset.count());
    out.set_size(tensor.size.count());
  }
  for (const ModelFileSpec& file : model.files) {
    v1::ModelFileSpec& out = *wire.add_files();
    out.set_name(file.name);
    out.set_size(file.size.count());
  }
  return wire;
}

absl::StatusOr<ModelSpec> FromProto(const v1::ModelSpec& wire) {
  FieldCheck check;
  ModelSpec model;
  model.architecture = check.Name("ModelSpec.architecture", wire.architecture());
  model.name = wire.name();
  model.vocab = check.Int("ModelSpec.vocab", wire.vocab(), 1, 1 << 30);
  model.d_model = check.Int32("ModelSpec.d_model", wire.d_model(), 1);
  model.context_length = check.Int32("ModelSpec.context_length", wire.context_length(), 1);
  model.norm_epsilon =
      static_cast<float>(check.NonNegative("ModelSpec.norm_epsilon", wire.norm_epsilon()));
  model.tied_output = wire.tied_output();
  model.rope = RopeFromProto(check, wire.rope());
  for (int i = 0; i < wire.layers_size(); ++i) {
    const std::string at = absl::StrCat("ModelSpec.layers[", i, "]");
    model.layers.push_back(LayerFromProto(check, at, wire.layers(i)));
  }
  for (int i = 0; i < wire.tensors_size() && check.ok(); ++i) {
    const std::string at = absl::StrCat("ModelSpec.tensors[", i, "]");
    model.tensors.push_back(
        TensorFromProto(check, at, wire.tensors(i), wire.layers_size(), wire.files_size()));
  }
  for (int i = 0; i < wire.files_size(); ++i) {
    const std::string at = absl::StrCat("ModelSpec.files[", i, "].size");
    model.files.push_back({wire.files(i).name(), check.Size(at, wire.files(i).size())});
  }
  if (!check.ok()) return check.status();
  return model;
}

}  // namespace millrace
