#include "proto/grpc_status.h"

#include <string>

namespace millrace {
namespace {

constexpr size_t kMaxMessage = 4096;  // bytes

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(static_cast<int>(status.code())),
                      std::string(status.message().substr(0, kMaxMessage)));
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return StatusFromWire(status.error_code(), status.error_message());
}

absl::Status StatusFromWire(int code, absl::string_view message) {
  if (code == 0) return absl::InternalError(message);
  if (code < 0 || code > static_cast<int>(absl::StatusCode::kUnauthenticated)) {
    return absl::UnknownError(message);
  }
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

}  // namespace millrace
