// The types that a plan's tensors are converted to, as text for people.
#ifndef MILLRACE_PLANNER_PRECISION_WORDS_H_
#define MILLRACE_PLANNER_PRECISION_WORDS_H_

#include <string>

#include "proto/placement_plan.h"

namespace millrace {

// "precision: 40 tensors converted to q6_K, 14 to q8_0; all others as in the file", a line; empty
// where nothing is converted.
std::string RenderPrecision(const PlacementPlan& plan);

// Every converted tensor by type, those of several layers joined: a title and indented lines; empty
// where nothing is converted.
std::string RenderStoredTypes(const PlacementPlan& plan);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PRECISION_WORDS_H_
