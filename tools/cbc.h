// Runs CBC, a solver of mixed-integer linear programs (Debian's coinor-cbc), where it is installed.
#ifndef MILLRACE_TOOLS_CBC_H_
#define MILLRACE_TOOLS_CBC_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace millrace {

struct CbcAnswer {
  bool infeasible = false;               // proven
  bool optimal = false;                  // proven: `objective` is the least
  double objective = 0;                  // of the best solution found, if any
  double bound = 0;                      // proven: no solution is less; -infinity: nothing is known
  std::map<std::string, double> values;  // of the variables that are not 0
};

// The least of `lp`, in the LP format, in about `limit` at most. NotFound: there is no cbc; says
// what to install. Unavailable: it failed, or its output was not understood.
absl::StatusOr<CbcAnswer> RunCbc(absl::string_view lp, absl::Duration limit);

// What cbc prints, and the file that it writes its solution to.
absl::StatusOr<CbcAnswer> ParseCbc(absl::string_view log, absl::string_view solution);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_CBC_H_
