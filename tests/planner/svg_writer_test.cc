#include "planner/svg_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

namespace millrace {
namespace {

using ::testing::HasSubstr;

TEST(XmlTextTest, EscapesMarkup) {
  EXPECT_EQ(XmlText("a<b>&\"c'\n"), "a&lt;b&gt;&amp;&quot;c&apos;\n");
  EXPECT_EQ(XmlText(""), "");
}

TEST(XmlTextTest, ReplacesWhatIsNoCharacter) {
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(XmlText("gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x99\x82"),
            "gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x99\x82");
  EXPECT_EQ(XmlText(absl::string_view("a\0b\x1F", 4)), "a" + bad + "b" + bad);
  EXPECT_EQ(XmlText("\xFFx"), bad + "x");
  EXPECT_EQ(XmlText("\xC3"), bad);                                // cut off
  EXPECT_EQ(XmlText("\xC0\xAF"), bad + bad);                      // overlong
  EXPECT_EQ(XmlText("\xE0\x80\xAF"), bad + bad + bad);            // overlong
  EXPECT_EQ(XmlText("\xED\xA0\x80"), bad + bad + bad);            // surrogate
  EXPECT_EQ(XmlText("\xF4\x90\x80\x80"), bad + bad + bad + bad);  // above U+10FFFF
  EXPECT_EQ(XmlText("\xEF\xBF\xBF"), bad + bad + bad);            // U+FFFF
}

TEST(ElideMiddleTest, CountsCharactersAndKeepsBothEnds) {
  EXPECT_EQ(ElideMiddle("0123456789", 10), "0123456789");
  EXPECT_EQ(ElideMiddle("0123456789a", 10), "012...789a");
  EXPECT_EQ(ElideMiddle("\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC", 5),
            "\xC3\xBC...\xC3\xBC");
}

TEST(HslColorTest, KnownColors) {
  EXPECT_EQ(HslColor(0, 1, 0.5), "#ff0000");
  EXPECT_EQ(HslColor(120, 1, 0.25), "#008000");
  EXPECT_EQ(HslColor(210, 0.5, 0.5), "#4080bf");
  EXPECT_EQ(HslColor(77, 0, 1), "#ffffff");
}

TEST(SvgWriterTest, WritesOneElementALine) {
  SvgWriter svg(100, 50, "a & b", "d");
  svg.Box({1, 2, 3, 4.125}, "block", "#123456", false, "<tip>");
  svg.Text(5, 6, {.size = 13, .bold = true}, "x<y");
  const std::string out = std::move(svg).Finish();
  EXPECT_THAT(out, HasSubstr("<title>a &amp; b</title>"));
  EXPECT_THAT(out, HasSubstr("x=\"1.00\" y=\"2.00\" width=\"3.00\" height=\"4.12\""));
  EXPECT_THAT(out, HasSubstr("<title>&lt;tip&gt;</title></rect>\n"));
  EXPECT_THAT(out, HasSubstr("font-size=\"13\" font-weight=\"bold\">x&lt;y</text>\n</svg>\n"));
}

}  // namespace
}  // namespace millrace
