// A plan as a picture.
#ifndef MILLRACE_PLANNER_PLAN_SVG_H_
#define MILLRACE_PLANNER_PLAN_SVG_H_

#include <string>

#include "proto/placement_plan.h"

namespace millrace {

// An SVG document: LayOutPlan's columns, labels and legend. Equal plans give equal bytes.
std::string RenderPlanSvg(const PlacementPlan& plan);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLAN_SVG_H_
