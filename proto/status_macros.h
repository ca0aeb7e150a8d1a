// MILLRACE_RETURN_IF_ERROR, MILLRACE_ASSIGN_OR_RETURN, MILLRACE_CHECK.
// (Debian's abseil, 20220623, has neither status macros nor absl/log.)
#ifndef MILLRACE_PROTO_STATUS_MACROS_H_
#define MILLRACE_PROTO_STATUS_MACROS_H_

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace millrace {

// The same code with `context` put before the message: "loading blk.3.ffn_up: <message>".
inline absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(context, ": ", status.message()));
}

namespace internal {
[[noreturn]] inline void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "millrace bug: check '%s' failed at %s:%d\n", condition, file, line);
  std::abort();
}
inline absl::Status GetStatus(const absl::Status& s) { return s; }
template <typename T>
absl::Status GetStatus(const absl::StatusOr<T>& s) {
  return s.status();
}
}  // namespace internal
}  // namespace millrace

#define MILLRACE_CONCAT_INNER_(a, b) a##b
#define MILLRACE_CONCAT_(a, b) MILLRACE_CONCAT_INNER_(a, b)

#define MILLRACE_RETURN_IF_ERROR(expr)                                                         \
  do {                                                                                         \
    if (::absl::Status mr_status_ = ::millrace::internal::GetStatus((expr)); !mr_status_.ok()) \
      return mr_status_;                                                                       \
  } while (false)

#define MILLRACE_ASSIGN_OR_RETURN(lhs, expr) \
  MILLRACE_ASSIGN_OR_RETURN_(MILLRACE_CONCAT_(mr_statusor_, __LINE__), lhs, expr)
#define MILLRACE_ASSIGN_OR_RETURN_(var, lhs, expr) \
  auto var = (expr);                               \
  if (!var.ok()) return var.status();              \
  lhs = *std::move(var)

// For our own bugs only; run-time failure is an absl::Status. Always on.
#define MILLRACE_CHECK(condition)                                                        \
  do {                                                                                   \
    if (!(condition)) ::millrace::internal::CheckFailed(#condition, __FILE__, __LINE__); \
  } while (false)

#endif  // MILLRACE_PROTO_STATUS_MACROS_H_
