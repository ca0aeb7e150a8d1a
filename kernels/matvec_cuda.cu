#include <algorithm>
#include <utility>

#include "kernels/matvec_cuda.cuh"

namespace millrace::cuda {
namespace matvec {
namespace {

using SetFunction = absl::Status (*)(Params& p, int multiprocessors, int room, StreamView stream);
struct TypeSet {
  std::initializer_list<DType> types;
  SetFunction run;
};

// The first that holds all types of a launch is taken.
constexpr TypeSet kSets[] = {
    {{DType::kF16}, RunF16},
    {{DType::kQ8_0}, RunQ8_0},
};

SetFunction SetFor(absl::Span<const MatvecOp> ops) {
  for (const TypeSet& set : kSets) {
    const bool all = std::all_of(ops.begin(), ops.end(), [&](const MatvecOp& op) {
      return std::find(set.types.begin(), set.types.end(), op.dtype) != set.types.end();
    });
    if (all) return set.run;
  }
  return nullptr;
}

constexpr int kAttentionBytes = 24 * 1024;  // of a decode attention block of heads up to 128
constexpr int kLeastRoom = 176 * 1024;      // rows of 32,768 halves and rings of 7 KiB

// What the current device has for the kernel.
struct DeviceRoom {
  int multiprocessors = 0;
  int shared = 0;  // bytes for activations and rings; 0: the device does not run it
};

absl::StatusOr<int> Attribute(cudaDeviceAttr attribute, int device) {
  int value = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

absl::StatusOr<DeviceRoom> RoomOfDevice() {
  int device = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  MILLRACE_ASSIGN_OR_RETURN(const int major, Attribute(cudaDevAttrComputeCapabilityMajor, device));
  MILLRACE_ASSIGN_OR_RETURN(const int shared,
                            Attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device));
  MILLRACE_ASSIGN_OR_RETURN(const int reserved,
                            Attribute(cudaDevAttrReservedSharedMemoryPerBlock, device));
  DeviceRoom room;
  MILLRACE_ASSIGN_OR_RETURN(room.multiprocessors,
                            Attribute(cudaDevAttrMultiProcessorCount, device));
  const int own = static_cast<int>(sizeof(Shared)) + reserved + 128;  // 128: the ring's alignment
  const int left = shared - own - kAttentionBytes - reserved;
  if (major >= 9 && left >= kLeastRoom) room.shared = left;
  return room;
}

}  // namespace
}  // namespace matvec

absl::StatusOr<bool> HasMatvec() {
  MILLRACE_ASSIGN_OR_RETURN(const matvec::DeviceRoom room, matvec::RoomOfDevice());
  return room.shared > 0;
}

bool FitOneLaunch(absl::Span<const MatvecOp> ops) {
  for (const MatvecOp& op : ops) {
    if (op.p.cols > kMostMatvecCols) return false;
  }
  return ops.size() <= kMostMatvecs && matvec::SetFor(ops) != nullptr;
}

namespace matvec {
namespace {

constexpr int kAreaWords = kMatvecRoomBytes / 16;

// Packets from `to` to the op behind it, which reads what it writes.
void Connect(Op& to, Op& from, uint64_t* area, uint32_t flag) {
  const __half* written = to.swiglu ? to.p.out : to.p.normed;
  MILLRACE_CHECK(written != nullptr && from.p.x == written);
  from.norm_is_there = from.p.norm.sums == to.p.norm.sums;
  MILLRACE_CHECK(from.p.norm.sums == nullptr || from.norm_is_there ||
                 from.p.norm.sums == to.p.next_sums);
  to.to = area;
  from.from = area;
  to.to_flag = from.from_flag = flag;
}

}  // namespace
}  // namespace matvec

absl::Status RunMatvecs(absl::Span<const MatvecOp> ops, const MatvecRoom& room, int launch,
                        StreamView stream) {
  MILLRACE_CHECK(!ops.empty() && FitOneLaunch(ops));
  MILLRACE_CHECK(ops.size() == 1 || (room.packets != nullptr && room.epoch != nullptr));
  MILLRACE_ASSIGN_OR_RETURN(const matvec::DeviceRoom device, matvec::RoomOfDevice());
  MILLRACE_CHECK(device.shared > 0);
  matvec::Params p;
  for (const MatvecOp& op : ops) {
    MILLRACE_CHECK(op.p.n == 1 && op.p.strips > 0 && (!op.beside || p.count > 0));
    matvec::Op& to = p.ops[p.count++];
    to.p = op.p;
    to.dtype = op.dtype;
    to.swiglu = op.swiglu;
    to.beside = op.beside;
    if (p.count == 1) continue;
    matvec::Op& before = p.ops[p.count - 2];
    if (op.beside) {
      MILLRACE_CHECK(op.p.x == before.p.x && op.p.norm.sums == before.p.norm.sums);
    } else {
      const auto flag = static_cast<uint32_t>(launch % 128 * kMostMatvecs + p.count - 1);
      matvec::Connect(before, to, room.packets + p.count % 2 * matvec::kAreaWords, flag);
    }
  }
  p.epoch = room.epoch;
  return matvec::SetFor(ops)(p, device.multiprocessors, device.shared, stream);
}

absl::Status MatvecQueue::Add(const MatvecOp& op, StreamView stream) {
  ops_.push_back(op);
  if (FitOneLaunch(ops_)) return absl::OkStatus();
  ops_.pop_back();
  MILLRACE_RETURN_IF_ERROR(Flush(stream));
  ops_.push_back(op);
  return absl::OkStatus();
}

absl::Status MatvecQueue::Flush(StreamView stream) {
  if (ops_.empty()) return absl::OkStatus();
  const std::vector<MatvecOp> ops = std::move(ops_);
  ops_.clear();
  return RunMatvecs(ops, room_, launches_++, stream);
}

}  // namespace millrace::cuda
