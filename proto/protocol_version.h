// The version of the planner-worker protocol: both sides must speak the same one.
#ifndef MILLRACE_PROTO_PROTOCOL_VERSION_H_
#define MILLRACE_PROTO_PROTOCOL_VERSION_H_

namespace millrace {

inline constexpr int kProtocolVersion = 1;

}  // namespace millrace

#endif  // MILLRACE_PROTO_PROTOCOL_VERSION_H_
