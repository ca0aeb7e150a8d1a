// The picture of a plan: its layout, and the document drawn from it.
#include "planner/plan_svg.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "planner/plan_picture.h"
#include "tests/planner/hand_made_plan.h"
#include "tests/planner/planned.h"
#include "tests/planner/random_problem.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Three layers read from disk besides, and a block split.
PlacementPlan MixedPlan() {
  PlacementPlan plan = Spilled(ResidentPlan(20), 2, 12);
  for (int i : {9, 10, 11}) plan.blocks[static_cast<size_t>(2 + 2 * i)].home = Home::kDisk;
  for (size_t i = plan.ledger.size(); i-- > 0;) {
    if (plan.ledger[i].memory == "host") plan.ledger[i].bytes -= 120_MiB;
  }
  plan.totals[1].used -= 120_MiB;
  plan.blocks[6].cpu_shares = {{64, 512}};
  plan.blocks[8].host_route_max_tokens = 0;
  plan.blocks[10].precision = "q6_K";
  return plan;
}

// Elements are closed in order, attributes quoted, each once; '&' only in known entities.
bool WellFormed(const std::string& text) {
  std::vector<std::string> open;
  size_t at = text.find("<svg");
  while (at < text.size()) {
    if (text[at] == '&') {
      const std::string entity = text.substr(at, text.find(';', at) - at + 1);
      const std::set<std::string> known = {"&amp;", "&lt;", "&gt;", "&quot;", "&apos;"};
      if (!known.contains(entity)) return false;
    }
    if (text[at] != '<') {
      ++at;
      continue;
    }
    const size_t end = text.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = text.substr(at + 1, end - at - 1);
    if (tag.find('<') != std::string::npos) return false;
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return false;
      open.pop_back();
    } else if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) {
      return false;
    } else if (tag.back() != '/') {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
    at = end + 1;
  }
  return open.empty();
}

TEST(PlanPictureTest, ColumnsAreDevicesHostAndDisk) {
  const PlanPicture picture = LayOutPlan(MixedPlan());
  std::vector<std::string> names;
  for (const PictureColumn& c : picture.columns) names.push_back(c.name);
  EXPECT_THAT(names, ElementsAre("gpu0", "RAM", "disk"));
  EXPECT_EQ(picture.columns[2].used, 120_MiB);
  EXPECT_FALSE(picture.columns[0].cut);
  EXPECT_TRUE(picture.columns[1].cut);  // 8 GiB of which little is used
}

TEST(PlanPictureTest, HeightsAddUpToTheLedgerWithinAPixel) {
  const PlacementPlan plan = MixedPlan();
  const PlanPicture picture = LayOutPlan(plan);
  for (const PictureColumn& column : picture.columns) {
    double used = 0, blocks = 0, y = column.top;
    for (const PictureBox& box : column.boxes) {
      EXPECT_NEAR(box.top, y, 1e-6) << column.name << " " << box.name;
      EXPECT_GE(box.height, 0);
      y += box.height;
      if (box.kind != "free") used += box.height;
      if (box.kind == "block") blocks += box.height;
    }
    EXPECT_NEAR(y, picture.base, 1e-6);
    EXPECT_NEAR(column.top + column.height, picture.base, 1e-6);
    const double pixels = static_cast<double>(column.used.count()) / picture.bytes_per_pixel;
    EXPECT_NEAR(used, pixels, 1) << column.name;
    EXPECT_GT(blocks, 0);
    if (column.cut || column.budget == Bytes(0)) continue;
    EXPECT_NEAR(column.height, static_cast<double>(column.budget.count()) / picture.bytes_per_pixel,
                1);
  }
  EXPECT_EQ(picture.columns[0].used, plan.totals[0].used);
}

TEST(PlanPictureTest, ThePlannersOwnPlansAreDrawnToScale) {
  for (const Bytes budget : {1_GiB, 16_MiB, 12_MiB}) {
    for (const bool tied : {false, true}) {
      std::mt19937 rng(1);
      PlacementProblem problem = BaseProblem(TestModel(4, tied, rng, false, 512));
      HostSpec host = CpuHost("w", 1_GiB, 20);
      host.devices = {Gpu("gpu0", budget, 4000, 50)};
      problem.cluster.hosts = {host};
      const PlacementPlan plan = Planned(problem);
      const PlanPicture picture = LayOutPlan(plan);
      ASSERT_EQ(picture.columns.size(), plan.totals.size());
      for (size_t i = 0; i < plan.totals.size(); ++i) {
        EXPECT_EQ(picture.columns[i].used, plan.totals[i].used);
        for (const PictureBox& box : picture.columns[i].boxes) {
          if (box.kind == "free") continue;
          EXPECT_NEAR(box.height * picture.bytes_per_pixel, static_cast<double>(box.bytes.count()),
                      1)
              << box.detail;
        }
      }
      EXPECT_TRUE(WellFormed(RenderPlanSvg(plan)));
    }
  }
}

TEST(PlanPictureTest, BlocksThatPassTheLedgerAreDrawnSmaller) {
  PlacementPlan plan = ResidentPlan(4);
  plan.ledger[0].bytes = 100_MiB;  // of 280
  const PlanPicture picture = LayOutPlan(plan);
  double blocks = 0;
  for (const PictureBox& box : picture.columns[0].boxes) {
    if (box.kind == "block") blocks += box.height;
  }
  EXPECT_NEAR(blocks * picture.bytes_per_pixel, static_cast<double>((100_MiB).count()), 1);
}

TEST(PlanPictureTest, EveryHomeRouteAndPrecisionHasItsColour) {
  const PlanPicture picture = LayOutPlan(MixedPlan());
  std::set<std::string> colors, texts;
  for (const LegendLine& line : picture.legend) {
    colors.insert(line.color);
    texts.insert(line.text);
  }
  EXPECT_EQ(colors.size(), picture.legend.size());
  for (const char* text : {"resident on the GPU, q4_K: 32 blocks, 840 MiB",
                           "in RAM, streamed to the GPU, q4_K: 1 block, 40.0 MiB",
                           "in RAM, split between CPU and GPU, q4_K: 1 block, 40.0 MiB",
                           "in RAM, by the CPU in small passes, q4_K: 4 blocks, 160 MiB",
                           "in RAM, by the CPU in small passes, q6_K: 1 block, 40.0 MiB",
                           "on disk, streamed to the GPU, q4_K: 3 blocks, 120 MiB", "kv cache",
                           "stream ring", "free"}) {
    EXPECT_TRUE(texts.contains(text)) << text;
  }
}

TEST(PlanPictureTest, LabelsDoNotOverlapAndStayInside) {
  PlacementPlan plan = MixedPlan();
  for (size_t i = 2; i < plan.blocks.size(); i += 4) {  // many short runs
    plan.blocks[i].home = i % 8 == 2 ? Home::kHost : Home::kDisk;
  }
  for (const PlacementPlan& p : {plan, MixedPlan(), ResidentPlan(1), ResidentPlan(80)}) {
    const PlanPicture picture = LayOutPlan(p);
    for (const PictureColumn& column : picture.columns) {
      double y = 60;  // below the heading
      for (const PictureLabel& label : column.labels) {
        EXPECT_GE(label.top, y - 1e-6) << column.name << " " << label.lines[0];
        y = label.top + kLabelLine * static_cast<double>(label.lines.size());
        for (const std::string& line : label.lines) EXPECT_LE(line.size(), 30u) << line;
      }
      EXPECT_LE(y, picture.base + kLabelLine);
      EXPECT_LE(column.left + kColumnWidth, picture.width);
    }
  }
}

TEST(PlanPictureTest, AnEmptyDeviceAndNoLedgerAreDrawnToo) {
  PlacementPlan plan = ResidentPlan(2);
  plan.totals.push_back({WorkerId("w"), "gpu1", 2_GiB, Bytes(0)});
  const PlanPicture picture = LayOutPlan(plan);
  ASSERT_EQ(picture.columns.size(), 2u);
  ASSERT_EQ(picture.columns[1].boxes.size(), 1u);
  EXPECT_EQ(picture.columns[1].boxes[0].kind, "free");
  plan.ledger.clear();
  plan.totals.clear();
  EXPECT_TRUE(WellFormed(RenderPlanSvg(plan)));
}

TEST(PlanSvgTest, IsWellFormedAndDeterministic) {
  const std::string svg = RenderPlanSvg(MixedPlan());
  EXPECT_TRUE(WellFormed(svg));
  EXPECT_EQ(svg, RenderPlanSvg(MixedPlan()));
  EXPECT_THAT(svg, HasSubstr("context 4096 x 1 slot"));
  EXPECT_THAT(svg, HasSubstr("predicted: 100.0 tokens/s"));
  EXPECT_THAT(svg, Not(HasSubstr("<script")));
  EXPECT_THAT(svg, Not(HasSubstr("href")));
  EXPECT_FALSE(WellFormed("<svg><a></svg>"));
  EXPECT_FALSE(WellFormed("<svg>&b;</svg>"));
}

TEST(PlanSvgTest, NamesAreEscaped) {
  PlacementPlan plan = Spilled(ResidentPlan(2), 0, 1);
  plan.model = "<a> & \"b\".gguf";
  plan.binding_constraint = "x < y & z\xFF";
  plan.blocks[3].name = "blk.<1>";
  plan.blocks[3].precision = "q\"4'";
  for (LedgerEntry& e : plan.ledger) e.worker = WorkerId("w&w");
  for (LedgerTotal& t : plan.totals) t.worker = WorkerId("w&w");
  const std::string svg = RenderPlanSvg(plan);
  EXPECT_TRUE(WellFormed(svg));
  EXPECT_THAT(svg, HasSubstr("&lt;a&gt; &amp; &quot;b&quot;.gguf"));
  EXPECT_THAT(svg, HasSubstr(">w&amp;w/gpu0</text>"));
}

}  // namespace
}  // namespace millrace
