// GrpcLink: the stage link over a gRPC stream (WorkerService.RunStage). The stream is opened at the
// first pass and again after a failure; the receiving side is worker/link/stage_server.h.
#ifndef MILLRACE_WORKER_LINK_GRPC_LINK_H_
#define MILLRACE_WORKER_LINK_GRPC_LINK_H_

#include <memory>
#include <string>

#include "proto/ids.h"
#include "worker/link/stage_link.h"

namespace millrace {

struct GrpcLinkOptions {
  WorkerId from;        // this worker, for the peer's logs
  WorkerId to;          // named in errors
  std::string address;  // of `to`
  int stage = 0;        // index of the stage asked
  Epoch epoch;
};

// Connects lazily, so it cannot fail. Besides the deadline of a pass, keepalive bounds every wait:
// a peer that is killed, stopped or cut off gives Unavailable within 3 s (proto/grpc_transport.h).
std::unique_ptr<StageLink> MakeGrpcLink(const GrpcLinkOptions& options);

}  // namespace millrace

#endif  // MILLRACE_WORKER_LINK_GRPC_LINK_H_
