// The one conversion between absl::Status and grpc::Status. Codes are the same numbers by design
// (google.rpc.Code); messages are passed through, cut to 4 KiB so that they fit in trailers.
#ifndef MILLRACE_PROTO_GRPC_STATUS_H_
#define MILLRACE_PROTO_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace millrace {

grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

// A code as it travels in a message field; unknown numbers become kUnknown, OK kInternal (an error
// that claims to be none).
absl::Status StatusFromWire(int code, absl::string_view message);

}  // namespace millrace

#endif  // MILLRACE_PROTO_GRPC_STATUS_H_
