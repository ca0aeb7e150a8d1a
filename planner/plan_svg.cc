#include "planner/plan_svg.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "planner/plan_picture.h"
#include "planner/svg_writer.h"

namespace millrace {
namespace {

void DrawColumn(const PlanPicture& picture, const PictureColumn& column, SvgWriter& svg) {
  for (const PictureBox& box : column.boxes) {
    svg.Box({column.left, box.top, kColumnWidth, box.height}, box.kind,
            picture.legend[box.legend].color, box.kind == "free", box.detail);
  }
  const double right = column.left + kColumnWidth;
  for (const PictureLabel& label : column.labels) {
    const double middle = label.top + kLabelLine * static_cast<double>(label.lines.size()) / 2;
    svg.Line(right, label.points_at, right + 5, label.points_at);
    svg.Line(right + 5, label.points_at, right + 14, middle);
    for (size_t i = 0; i < label.lines.size(); ++i) {
      svg.Text(right + 17, label.top + kLabelLine * static_cast<double>(i) + 10, {},
               label.lines[i]);
    }
  }
  svg.Text(column.left, picture.base + 18, {.size = 13, .bold = true}, column.name);
  const std::string used = FormatBytes(column.used);
  svg.Text(
      column.left, picture.base + 33, {},
      column.budget > Bytes(0) ? absl::StrCat(used, " of ", FormatBytes(column.budget)) : used);
}

void DrawLegend(const PlanPicture& picture, double top, SvgWriter& svg) {
  for (size_t i = 0; i < picture.legend.size(); ++i) {
    const double left =
        kPictureMargin + kLegendWidth * static_cast<double>(i / picture.legend_rows);
    const double y = top + kLegendLine * static_cast<double>(i % picture.legend_rows);
    svg.Box({left, y, 14, 14}, "legend", picture.legend[i].color, picture.legend[i].text == "free",
            "");
    svg.Text(left + 20, y + 11, {}, picture.legend[i].text);
  }
}

}  // namespace

std::string RenderPlanSvg(const PlacementPlan& plan) {
  const PlanPicture picture = LayOutPlan(plan);
  SvgWriter svg(picture.width, picture.height, picture.heading.front(), picture.description);
  double y = kPictureMargin + 10;
  for (const std::string& line : picture.heading) {
    const bool title = &line == &picture.heading.front();
    svg.Text(kPictureMargin, y, {.size = title ? 17 : 13, .bold = title}, line);
    y += 20;
  }
  for (const PictureColumn& column : picture.columns) DrawColumn(picture, column, svg);
  DrawLegend(picture, picture.base + 56, svg);
  return std::move(svg).Finish();
}

}  // namespace millrace
