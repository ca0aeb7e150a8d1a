#include "planner/svg_writer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace millrace {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// The length of the character that `text` begins with; 0 where that is not UTF-8 or not allowed in
// XML (https://www.w3.org/TR/xml/#charsets).
size_t CharacterLength(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return lead >= 0x20 || lead == '\t' || lead == '\n' || lead == '\r' ? 1 : 0;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  uint32_t code = lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  constexpr std::array<uint32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  const bool allowed =
      code >= kLeast[length] && code <= 0x10FFFF && !surrogate && code != 0xFFFE && code != 0xFFFF;
  return allowed ? length : 0;
}

// Characters, each as text; bytes that are none as U+FFFD.
std::vector<absl::string_view> Characters(absl::string_view text) {
  std::vector<absl::string_view> characters;
  while (!text.empty()) {
    const size_t length = CharacterLength(text);
    characters.push_back(length == 0 ? kReplacement : text.substr(0, length));
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return characters;
}

}  // namespace

std::string XmlText(absl::string_view text) {
  std::string out;
  for (absl::string_view character : Characters(text)) {
    switch (character[0]) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&apos;";
        break;
      default:
        absl::StrAppend(&out, character);
    }
  }
  return out;
}

std::string ElideMiddle(absl::string_view text, size_t max) {
  const std::vector<absl::string_view> characters = Characters(text);
  const size_t head = (max - 3) / 2, tail = max - 3 - head;
  std::string out;
  for (size_t i = 0; i < characters.size(); ++i) {
    const bool shown = characters.size() <= max || i < head || i >= characters.size() - tail;
    if (shown) absl::StrAppend(&out, characters[i]);
    if (characters.size() > max && i == head) out += "...";
  }
  return out;
}

std::string HslColor(double hue, double saturation, double lightness) {
  // https://www.w3.org/TR/css-color-3/#hsl-color, in the form with one function for three channels.
  const double amplitude = saturation * std::min(lightness, 1 - lightness);
  const auto channel = [&](double n) {
    const double k = std::fmod(n + hue / 30, 12);
    const double value = lightness - amplitude * std::clamp(std::min(k - 3, 9 - k), -1.0, 1.0);
    return static_cast<int>(std::lround(255 * value));
  };
  return absl::StrFormat("#%02x%02x%02x", channel(0), channel(8), channel(4));
}

SvgWriter::SvgWriter(double width, double height, absl::string_view title,
                     absl::string_view description) {
  out_ = absl::StrFormat(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
      "viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\">\n"
      "<title>%s</title>\n<desc>%s</desc>\n"
      "<rect class=\"background\" width=\"%.0f\" height=\"%.0f\" fill=\"#ffffff\"/>\n",
      width, height, width, height, XmlText(title), XmlText(description), width, height);
}

void SvgWriter::Box(const SvgBox& box, absl::string_view kind, absl::string_view fill, bool dashed,
                    absl::string_view tooltip) {
  absl::StrAppendFormat(
      &out_,
      "<rect class=\"%s\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\" %s",
      XmlText(kind), box.left, box.top, box.width, box.height, XmlText(fill),
      dashed ? "stroke=\"#888888\" stroke-dasharray=\"4 3\""
             : "stroke=\"#ffffff\" stroke-width=\"0.5\"");
  if (tooltip.empty()) {
    absl::StrAppend(&out_, "/>\n");
  } else {
    absl::StrAppend(&out_, "><title>", XmlText(tooltip), "</title></rect>\n");
  }
}

void SvgWriter::Text(double x, double y, const SvgTextStyle& style, absl::string_view text) {
  absl::StrAppendFormat(&out_, "<text x=\"%.2f\" y=\"%.2f\" font-size=\"%d\"%s>%s</text>\n", x, y,
                        style.size, style.bold ? " font-weight=\"bold\"" : "", XmlText(text));
}

void SvgWriter::Line(double x1, double y1, double x2, double y2) {
  absl::StrAppendFormat(&out_,
                        "<line x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\" stroke=\"#888888\" "
                        "stroke-width=\"0.7\"/>\n",
                        x1, y1, x2, y2);
}

std::string SvgWriter::Finish() && {
  absl::StrAppend(&out_, "</svg>\n");
  return std::move(out_);
}

}  // namespace millrace
