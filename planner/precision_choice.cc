#include "planner/precision_choice.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "planner/pins.h"
#include "proto/status_macros.h"
#include "proto/stored_types.h"

namespace millrace {
namespace {

// One way to hold an item.
struct Option {
  DType dtype{};
  Bytes bytes;
  double loss = 0;
};

// Tensors that share a type, or the caches.
struct Item {
  std::vector<int> tensors;     // empty: the caches
  std::vector<Option> options;  // the first as in the file, then by falling bytes and growing loss
  size_t chosen = 0;

  const Option& now() const { return options[chosen]; }
};

double BitsOf(DType dtype) {
  const DTypeInfo& info = Info(dtype);
  return 8.0 * info.block_bytes / info.block_elements;
}

bool Matches(const PrecisionFloor& floor, const TensorSpec& tensor) {
  return GlobMatches(floor.pattern, tensor.name) ||
         GlobMatches(floor.pattern, absl::StripSuffix(tensor.name, ".weight"));
}

absl::Status CheckFloors(const PrecisionQuestion& q) {
  for (const PrecisionFloor& floor : q.floors) {
    const auto& tensors = q.file.tensors;
    if (std::any_of(tensors.begin(), tensors.end(),
                    [&](const TensorSpec& t) { return Matches(floor, t); })) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "precision floor '", floor.pattern, "=", DTypeName(floor.least),
        "' matches no tensor: names are those of the model file, e.g. ",
        tensors.empty() ? "" : tensors.back().name, " (`millrace inspect` lists them)"));
  }
  return absl::OkStatus();
}

// What the tensor may not go below, in bits per weight.
double FloorOf(const PrecisionQuestion& q, const TensorSpec& tensor) {
  double bits = 0;
  for (const PrecisionFloor& floor : q.floors) {
    if (Matches(floor, tensor)) bits = std::max(bits, BitsOf(floor.least));
  }
  return bits;
}

// Leaves out what another option, or a mixture of two, makes pointless: losses grow faster and
// faster over the bytes saved.
void KeepConvex(std::vector<Option>& options) {
  const auto slope = [](const Option& a, const Option& b) {
    return (b.loss - a.loss) / static_cast<double>((a.bytes - b.bytes).count());
  };
  std::vector<Option> kept;
  for (const Option& option : options) {
    if (!kept.empty() && option.bytes >= kept.back().bytes) continue;
    while (kept.size() >= 2 &&
           slope(kept[kept.size() - 2], kept.back()) >= slope(kept.back(), option)) {
      kept.pop_back();
    }
    kept.push_back(option);
  }
  options = std::move(kept);
}

Item ItemOf(const PrecisionQuestion& q, const std::vector<int>& tensors) {
  Item item;
  item.tensors = tensors;
  const int layers = static_cast<int>(q.file.layers.size());
  Option as_is;
  double floor = 0;
  for (int t : tensors) {
    const TensorSpec& tensor = q.file.tensors[static_cast<size_t>(t)];
    as_is.dtype = tensor.dtype;
    as_is.bytes += tensor.size;
    floor = std::max(floor, FloorOf(q, tensor));
  }
  item.options = {as_is};
  for (DType dtype : kQuantizeTypes) {
    Option option{dtype, Bytes(0), 0};
    bool possible = BitsOf(dtype) >= floor;
    for (int t : tensors) {
      const TensorSpec& tensor = q.file.tensors[static_cast<size_t>(t)];
      possible = possible && CanBeHeldAs(tensor, dtype);
      if (!possible) break;
      option.bytes += tensor.rows() * RowBytes(dtype, tensor.cols());
      option.loss += q.sensitivities.Loss(tensor, layers, dtype);
    }
    if (possible) item.options.push_back(option);
  }
  KeepConvex(item.options);
  return item;
}

Bytes KvBytes(const PrecisionQuestion& q, DType dtype) {
  Bytes sum;
  for (const LayerSpec& layer : q.file.layers) sum += q.kv_cells * KvBytesPerToken(layer, dtype);
  return sum;
}

Item KvItem(const PrecisionQuestion& q) {
  Item item;
  item.options = {{q.kv_type, KvBytes(q, q.kv_type), 0}};
  const bool fills = std::all_of(
      q.file.layers.begin(), q.file.layers.end(),
      [](const LayerSpec& l) { return l.head_dim % Info(DType::kQ8_0).block_elements == 0; });
  if (q.may_lower_kv && q.kv_type == DType::kF16 && fills) {
    item.options.push_back({DType::kQ8_0, KvBytes(q, DType::kQ8_0), q.sensitivities.kv_q8_0});
    KeepConvex(item.options);
  }
  return item;
}

class Choice {
 public:
  explicit Choice(const PrecisionQuestion& q) : q_(&q) {
    std::map<std::pair<int, int>, std::vector<int>> units;  // tensors that share a type
    for (size_t i = 0; i < q.file.tensors.size(); ++i) {
      const TensorSpec& t = q.file.tensors[i];
      const int index = static_cast<int>(i);
      const bool gated = t.role == TensorRole::kFfnGate || t.role == TensorRole::kFfnUp;
      const bool choosable = !RoleName(t.role).empty() && CanBeHeldAs(t, DType::kQ8_0);
      if (!choosable) {
        fixed_ += t.role == TensorRole::kRopeFactors ? Bytes(0) : t.size;
      } else {
        units[gated ? std::pair(t.layer, -1) : std::pair(t.layer, index)].push_back(index);
      }
    }
    for (const auto& [_, tensors] : units) items_.push_back(ItemOf(q, tensors));
    items_.push_back(KvItem(q));
  }

  Bytes bytes() const {
    Bytes sum = fixed_;
    for (const Item& item : items_) sum += item.now().bytes;
    return sum;
  }
  double loss() const {
    double sum = 0;
    for (const Item& item : items_) sum += item.now().loss;
    return sum;
  }

  // Every item as close to `dtype` from above as it may be; the last option for the lowest type.
  void SetUniform(DType dtype) {
    for (Item& item : items_) {
      if (item.tensors.empty()) continue;
      item.chosen = 0;
      while (item.chosen + 1 < item.options.size() &&
             BitsOf(item.options[item.chosen + 1].dtype) >= BitsOf(dtype)) {
        ++item.chosen;
      }
    }
  }
  void SetLowest() {
    for (Item& item : items_) item.chosen = item.options.size() - 1;
  }

  // Steps by least loss per byte until the budget holds or nothing is left to lower.
  void LowerTo(Bytes budget) {
    Bytes now = bytes();
    while (now > budget) {
      Item* best = nullptr;
      double least = 0;
      for (Item& item : items_) {
        if (item.chosen + 1 >= item.options.size()) continue;
        const Option &from = item.now(), &to = item.options[item.chosen + 1];
        const double price =
            (to.loss - from.loss) / static_cast<double>((from.bytes - to.bytes).count());
        if (best != nullptr && price >= least) continue;
        best = &item;
        least = price;
      }
      if (best == nullptr) return;
      now -= best->now().bytes;
      now += best->options[++best->chosen].bytes;
    }
  }

  // Gives what is left to the item that gains most, again and again.
  void RaiseWithin(Bytes budget) {
    Bytes left = budget - bytes();
    while (left > Bytes(0)) {
      Item* best = nullptr;
      size_t to = 0;
      double most = 0;
      for (Item& item : items_) {
        for (size_t o = 0; o < item.chosen; ++o) {
          const double gain = item.now().loss - item.options[o].loss;
          if (item.options[o].bytes - item.now().bytes > left || gain <= most) continue;
          best = &item;
          to = o;
          most = gain;
        }
      }
      if (best == nullptr) return;
      left -= best->options[to].bytes - best->now().bytes;
      best->chosen = to;
    }
  }

  PrecisionChoice Answer() const {
    PrecisionChoice answer;
    answer.bytes = bytes();
    answer.loss = loss();
    std::map<int, DType> types;
    for (const Item& item : items_) {
      if (item.tensors.empty()) answer.kv_type = item.now().dtype;
      for (int t : item.tensors) {
        if (item.chosen > 0) types[t] = item.now().dtype;
      }
    }
    for (const auto& [t, dtype] : types) {
      answer.types.push_back({q_->file.tensors[static_cast<size_t>(t)].name, dtype});
    }
    return answer;
  }

 private:
  const PrecisionQuestion* q_;
  std::vector<Item> items_;
  Bytes fixed_;
};

}  // namespace

absl::StatusOr<PrecisionRange> PrecisionRangeOf(const PrecisionQuestion& question) {
  MILLRACE_RETURN_IF_ERROR(CheckFloors(question));
  Choice choice(question);
  PrecisionRange range;
  range.most = choice.bytes();
  choice.SetLowest();
  range.least = choice.bytes();
  return range;
}

absl::StatusOr<PrecisionChoice> ChoosePrecision(const PrecisionQuestion& question, Bytes budget) {
  MILLRACE_RETURN_IF_ERROR(CheckFloors(question));
  Choice best(question);
  best.LowerTo(budget);
  best.RaiseWithin(budget);
  for (DType dtype : kQuantizeTypes) {
    Choice uniform(question);
    uniform.SetUniform(dtype);
    uniform.LowerTo(budget);
    uniform.RaiseWithin(budget);
    if (uniform.bytes() <= budget && uniform.loss() < best.loss()) best = uniform;
  }
  return best.Answer();
}

}  // namespace millrace
