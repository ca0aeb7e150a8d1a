#include "planner/query_check.h"

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/field_check.h"
#include "proto/tensor_shapes.h"

namespace millrace {
namespace {

constexpr int kMostWidth = 1 << 20;
constexpr int64_t kMostVocabulary = 1 << 22;
constexpr int kMostFiles = 100'000;

bool OfNoLayer(TensorRole role) {
  return role == TensorRole::kTokenEmbedding || role == TensorRole::kOutputNorm ||
         role == TensorRole::kOutput || role == TensorRole::kRopeFactors;
}

std::vector<int64_t> ShapeOf(const ModelSpec& model, const TensorSpec& t) {
  const int64_t d = model.d_model;
  if (t.role == TensorRole::kRopeFactors) return t.shape;  // never resident
  if (t.role == TensorRole::kOutputNorm) return {d};
  if (OfNoLayer(t.role)) return {model.vocab, d};
  return LayerTensorShape(model.layers[t.layer], d, t.role);
}

void CheckTensor(FieldCheck& check, const std::string& at, const ModelSpec& model,
                 const TensorSpec& t) {
  if (OfNoLayer(t.role) != (t.layer < 0)) {
    check.Refuse(at + ".layer", t.layer, " does not go with role ", static_cast<int>(t.role) + 1);
    return;
  }
  const std::vector<int64_t> shape = ShapeOf(model, t);
  if (t.shape != shape) {
    check.Refuse(at + ".shape", "[", absl::StrJoin(t.shape, ", "), "] is not [",
                 absl::StrJoin(shape, ", "), "], which the model's dimensions ask for");
    return;
  }
  const DTypeInfo& type = Info(t.dtype);
  if (t.cols() % type.block_elements != 0) {
    check.Refuse(at + ".dtype", "rows of ", t.cols(), " elements are not whole blocks of ",
                 type.name, " (", type.block_elements, " elements)");
    return;
  }
  const Bytes size = t.rows() * RowBytes(t.dtype, t.cols());
  if (t.size != size) {
    check.Refuse(at + ".size", t.size.count(), " is not ", size.count(),
                 ", the size of its shape and type");
  }
}

void CheckPresence(FieldCheck& check, const ModelSpec& model,
                   const std::map<std::pair<TensorRole, int>, size_t>& found) {
  const auto require = [&](TensorRole role, int layer) {
    if (found.contains({role, layer})) return;
    check.Refuse("ModelSpec.tensors", "none of role ", static_cast<int>(role) + 1,
                 layer < 0 ? "" : absl::StrCat(" in layer ", layer));
  };
  require(TensorRole::kTokenEmbedding, -1);
  require(TensorRole::kOutputNorm, -1);
  if (!model.tied_output) require(TensorRole::kOutput, -1);
  for (int layer = 0; layer < static_cast<int>(model.layers.size()) && check.ok(); ++layer) {
    for (TensorRole role : {TensorRole::kAttnNorm, TensorRole::kAttnQ, TensorRole::kAttnK,
                            TensorRole::kAttnV, TensorRole::kAttnOutput, TensorRole::kFfnNorm,
                            TensorRole::kFfnGate, TensorRole::kFfnUp, TensorRole::kFfnDown}) {
      require(role, layer);
    }
  }
}

void CheckDimensions(FieldCheck& check, const ModelSpec& model) {
  check.Int("ModelSpec.vocab", model.vocab, 1, kMostVocabulary);
  check.Int32("ModelSpec.d_model", model.d_model, 1, kMostWidth);
  check.Int("ModelSpec.layers", static_cast<int64_t>(model.layers.size()), 1, kMostLayers);
  check.Int("ModelSpec.files", static_cast<int64_t>(model.files.size()), 1, kMostFiles);
  if (model.name.size() > 1024) check.Refuse("ModelSpec.name", "is longer than 1024 bytes");
  for (size_t i = 0; i < model.layers.size() && check.ok(); ++i) {
    const LayerSpec& l = model.layers[i];
    const std::string at = absl::StrCat("ModelSpec.layers[", i, "]");
    check.Int32(at + ".d_ff", l.d_ff, 1, kMostWidth);
    check.Int(at + ".heads x head_dim", int64_t{l.heads} * l.head_dim, 1, kMostWidth);
  }
}

void CheckSpeed(FieldCheck& check, const std::string& field, double per_second) {
  if (!(per_second >= 1)) check.Refuse(field, per_second, " is less than one a second");
}
// Zero: not measured.
void CheckMeasured(FieldCheck& check, const std::string& field, double per_second) {
  if (per_second != 0) CheckSpeed(check, field, per_second);
}

void CheckHost(FieldCheck& check, const std::string& at, const HostSpec& host) {
  CheckSpeed(check, at + ".dram_bandwidth", host.dram_bandwidth.bytes_per_second());
  CheckMeasured(check, at + ".cpu_flops", host.cpu_flops);
  CheckMeasured(check, at + ".disk_bandwidth", host.disk_bandwidth.bytes_per_second());
  for (size_t i = 0; i < host.cpu_rates.size(); ++i) {
    const std::string rate = absl::StrCat(at, ".cpu_rates[", i, "]");
    CheckSpeed(check, rate + ".weights", host.cpu_rates[i].weights.bytes_per_second());
    CheckMeasured(check, rate + ".beside_copies",
                  host.cpu_rates[i].beside_copies.bytes_per_second());
  }
  for (size_t i = 0; i < host.devices.size(); ++i) {
    const DeviceSpec& device = host.devices[i];
    const std::string d = absl::StrCat(at, ".devices[", i, "]");
    CheckSpeed(check, d + ".memory_bandwidth", device.memory_bandwidth.bytes_per_second());
    CheckSpeed(check, d + ".prefill_flops", device.prefill_flops);
    if (device.kind != DeviceKind::kGpu) continue;
    CheckSpeed(check, d + ".h2d_bandwidth", device.h2d_bandwidth.bytes_per_second());
  }
}

}  // namespace

absl::Status CheckDescribedModel(const ModelSpec& model) {
  FieldCheck check;
  CheckDimensions(check, model);
  std::map<std::pair<TensorRole, int>, size_t> found;
  for (size_t i = 0; i < model.tensors.size() && check.ok(); ++i) {
    const TensorSpec& t = model.tensors[i];
    const std::string at = absl::StrCat("ModelSpec.tensors[", i, "]");
    CheckTensor(check, at, model, t);
    const auto [first, fresh] = found.emplace(std::pair(t.role, t.layer), i);
    if (!fresh) check.Refuse(at + ".role", "is that of ModelSpec.tensors[", first->second, "]");
  }
  if (check.ok()) CheckPresence(check, model, found);
  return check.status();
}

absl::Status CheckDescribedCluster(const ClusterSpec& cluster) {
  FieldCheck check;
  if (cluster.hosts.empty()) check.Refuse("ClusterSpec.hosts", "must not be empty");
  std::set<std::string> names;
  size_t devices = 0;
  for (size_t i = 0; i < cluster.hosts.size() && check.ok(); ++i) {
    const HostSpec& host = cluster.hosts[i];
    const std::string at = absl::StrCat("ClusterSpec.hosts[", i, "]");
    devices += host.devices.size();
    if (!names.insert(host.worker.value()).second) {
      check.Refuse(at + ".worker", "'", host.worker.value(), "' appears twice");
    }
    if (devices > kMostDevices) {
      check.Refuse(at + ".devices", "more than ", kMostDevices, " devices in all");
    }
    CheckHost(check, at, host);
  }
  for (const auto& [field, link] :
       {std::pair("ClusterSpec.remote", cluster.remote), {"ClusterSpec.local", cluster.local}}) {
    CheckSpeed(check, absl::StrCat(field, ".bandwidth"), link.bandwidth.bytes_per_second());
    if (link.latency > absl::Hours(1)) {
      check.Refuse(absl::StrCat(field, ".latency_ms"), "is more than an hour");
    }
  }
  return check.status();
}

}  // namespace millrace
