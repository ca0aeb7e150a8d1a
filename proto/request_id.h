// Fresh request ids.
#ifndef MILLRACE_PROTO_REQUEST_ID_H_
#define MILLRACE_PROTO_REQUEST_ID_H_

#include "proto/ids.h"

namespace millrace {

// "req-" and 16 random hex digits. Thread-safe.
RequestId NewRequestId();

}  // namespace millrace

#endif  // MILLRACE_PROTO_REQUEST_ID_H_
