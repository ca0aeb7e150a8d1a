// SVG as text: shapes, words and tooltips. Deterministic bytes, no scripts, no fonts of its own.
#ifndef MILLRACE_PLANNER_SVG_WRITER_H_
#define MILLRACE_PLANNER_SVG_WRITER_H_

#include <string>

#include "absl/strings/string_view.h"

namespace millrace {

// Escaped for XML. What is not UTF-8, or no character of XML, becomes U+FFFD.
std::string XmlText(absl::string_view text);

// At most `max` characters of UTF-8, the middle replaced by "...". `max` is at least 5.
std::string ElideMiddle(absl::string_view text, size_t max);

// "#rrggbb". Hue in degrees, the others in [0, 1].
std::string HslColor(double hue, double saturation, double lightness);

// In pixels, from the picture's left upper corner.
struct SvgBox {
  double left = 0, top = 0, width = 0, height = 0;
};

struct SvgTextStyle {
  int size = 11;  // pixels
  bool bold = false;
};

// Texts and names are escaped here.
class SvgWriter {
 public:
  SvgWriter(double width, double height, absl::string_view title, absl::string_view description);

  // `kind` becomes the class, `tooltip` may be empty. Dashed boxes have a grey border, others a
  // thin white one.
  void Box(const SvgBox& box, absl::string_view kind, absl::string_view fill, bool dashed,
           absl::string_view tooltip);
  // Begins at `x`; `y` is the base line.
  void Text(double x, double y, const SvgTextStyle& style, absl::string_view text);
  void Line(double x1, double y1, double x2, double y2);

  // The whole document. Nothing may be added afterwards.
  std::string Finish() &&;

 private:
  std::string out_;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_SVG_WRITER_H_
