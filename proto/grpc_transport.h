// How every channel and server of millrace is set up: keepalive on both sides, message limit,
// bounded threads, health. One place, so that planner, workers and clients agree.
#ifndef MILLRACE_PROTO_GRPC_TRANSPORT_H_
#define MILLRACE_PROTO_GRPC_TRANSPORT_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace millrace {

// A peer that does not answer a ping is gone after at most kKeepaliveTime + kKeepaliveTimeout: a
// stopped process or a cut cable is noticed as surely as a closed socket.
inline constexpr absl::Duration kKeepaliveTime = absl::Seconds(1);
inline constexpr absl::Duration kKeepaliveTimeout = absl::Seconds(2);
inline constexpr int kMaxMessageBytes = 4 << 20;
inline constexpr int kChunkBytes = 1 << 20;  // bulk data is cut into chunks of this

// Insecure for now (loopback and trusted networks); `target` is "host:port".
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target);

struct RunningServer {
  std::unique_ptr<grpc::Server> server;
  std::string address;  // "host:port" with the real port
  int port = 0;
};

// Starts `service` on `listen` ("host:port", port 0 = any free). The sync API is used: each call
// under way holds one thread, at most `max_threads` in all, one more is refused ResourceExhausted.
// grpc.health.v1 is on: SERVING for "" at once. Unavailable: the address cannot be bound (named).
absl::StatusOr<RunningServer> StartServer(const std::string& listen, grpc::Service* service,
                                          int max_threads = 256);

// A deadline for a call: `timeout` from now.
void SetTimeout(grpc::ClientContext& context, absl::Duration timeout);

// What is left of a server call's deadline, at most `longest`.
absl::Duration TimeLeft(const grpc::ServerContext& context, absl::Duration longest);

}  // namespace millrace

#endif  // MILLRACE_PROTO_GRPC_TRANSPORT_H_
