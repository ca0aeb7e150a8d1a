#include "worker/backend/cuda/cuda_backend_class.h"

#include <cstring>

#include "kernels/cuda/host_copy.h"

namespace millrace {

absl::Status CudaBackend::TakeHidden(const HiddenStates& hidden) {
  const FloatView& from = hidden.rows;
  if (from.rows == 0) return absl::OkStatus();
  const size_t row = sizeof(float) * static_cast<size_t>(model_.d_model);
  const Bytes size = SizeOf(row * static_cast<size_t>(from.rows));
  if (hidden.device != nullptr) {
    MILLRACE_CHECK(from.stride == from.cols);
    return receiver_.Take(*hidden.device, from.data, At(layout_.hidden), size, stream());
  }
  MILLRACE_ASSIGN_OR_RETURN(const FloatView room, PinnedRows(from.rows));
  for (int64_t r = 0; r < from.rows && from.data != room.data; ++r) {
    std::memcpy(static_cast<std::byte*>(pinned_hidden_->data()) + static_cast<size_t>(r) * row,
                from.row(r), row);
  }
  return cuda::CopyByKernel(At(layout_.hidden), pinned_hidden_->data(), size, stream());
}

absl::StatusOr<FloatView> CudaBackend::PinnedRows(int64_t n,
                                                  std::optional<cuda::PinnedBuffer>* buffer) {
  MILLRACE_RETURN_IF_ERROR(Use());
  if (!*buffer) {
    const size_t values = static_cast<size_t>(options_.max_pass_tokens) * static_cast<size_t>(model_.d_model);
    MILLRACE_ASSIGN_OR_RETURN(*buffer, cuda::PinnedBuffer::Create(SizeOf(sizeof(float) * values)));
  }
  return FloatView(static_cast<float*>((*buffer)->data()), n, model_.d_model);
}

// The pass before may not have been waited for, and its copies read the same memory.
absl::StatusOr<FloatView> CudaBackend::HostRows(int64_t n) {
  MILLRACE_ASSIGN_OR_RETURN(const FloatView rows, PinnedRows(n));
  MILLRACE_RETURN_IF_ERROR(stream().Wait(kPassTimeout));
  return rows;
}

absl::StatusOr<FloatView> CudaBackend::ReadHidden() {
  MILLRACE_RETURN_IF_ERROR(SendHidden());
  return AwaitHidden();
}

absl::Status CudaBackend::SendHidden() {
  MILLRACE_ASSIGN_OR_RETURN(const FloatView rows, PinnedRows(shape_.rows));
  if (!hidden_sent_) {
    MILLRACE_ASSIGN_OR_RETURN(hidden_sent_, cuda::Event::Create(device_));
  }
  const Bytes size = SizeOf(sizeof(float) * static_cast<size_t>(rows.rows * rows.cols));
  MILLRACE_RETURN_IF_ERROR(cuda::CopyByKernel(rows.data, At(layout_.hidden), size, stream()));
  return hidden_sent_->Record(stream());
}

absl::StatusOr<FloatView> CudaBackend::AwaitHidden() {
  MILLRACE_CHECK(hidden_sent_.has_value());
  MILLRACE_RETURN_IF_ERROR(hidden_sent_->Wait(kPassTimeout));
  return PinnedRows(shape_.rows);
}

absl::Status CudaBackend::AddPart() {
  MILLRACE_ASSIGN_OR_RETURN(const FloatView rows, PartRows());
  return cuda::AddByKernel(At(layout_.hidden), rows.data, rows.rows * rows.cols, stream());
}

absl::Status CudaBackend::WriteHidden() {
  MILLRACE_ASSIGN_OR_RETURN(const FloatView rows, PinnedRows(shape_.rows));
  const Bytes size = SizeOf(sizeof(float) * static_cast<size_t>(rows.rows * rows.cols));
  return cuda::CopyByKernel(At(layout_.hidden), rows.data, size, stream());
}

absl::StatusOr<HiddenStates> CudaBackend::ShareHidden() {
  MILLRACE_RETURN_IF_ERROR(shared_->Offer(stream()));
  HiddenStates hidden = buffers().hidden;
  hidden.device = shared_.get();
  return hidden;
}

}  // namespace millrace
