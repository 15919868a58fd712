#include "parallel/plan_drawing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "parallel/length_mix.h"
#include "parallel/planner.h"

namespace longspan {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

PlanTimeline TwoRanks() {
  PlanTimeline timeline;
  timeline.makespan = IntegerCostModel::Create({0, 1, 0, 0, 0, {}}, 2)->Sequence(10, 1);
  const PlanningTime tenth = timeline.makespan / 10;
  TimedMicroBatch ring, whole;
  ring.ring = 0;
  ring.load.members = 2;
  ring.start = 2 * tenth;
  ring.end = 5 * tenth;
  whole.end = 2 * tenth;
  timeline.micro_batches = {{whole, ring}, {ring}};
  whole.start = 5 * tenth;
  whole.end = timeline.makespan;
  timeline.micro_batches[1].push_back(whole);
  return timeline;
}

TEST(PlanDrawingTest, TextShowsRingsWholeSequencesAndIdleTime) {
  EXPECT_EQ(TextTimeline(TwoRanks(), 10),
            "    0 |==aaa.....|\n"
            "    1 |..aaa=====|\n");
}

TEST(PlanDrawingTest, SvgHasOneBoxForARingOfNeighbours) {
  const std::string svg = SvgTimeline(TwoRanks(), 9, "a < b & c");
  EXPECT_THAT(svg, StartsWith("<svg "));
  EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; c"));
  EXPECT_THAT(svg, HasSubstr("ring of 2"));
  EXPECT_THAT(svg, HasSubstr("stroke-dasharray"));
  EXPECT_THAT(svg, HasSubstr("</svg>\n"));
  // In the drawing once, and once in the legend.
  const std::string colour = "hsl(220,65%,60%)";
  const size_t first = svg.find(colour), second = svg.find(colour, first + 1);
  EXPECT_NE(second, std::string::npos);
  EXPECT_EQ(svg.find(colour, second + 1), std::string::npos);
}

TEST(PlanDrawingTest, TheLegendSaysWhereHeadsAreSplit) {
  PlanTimeline timeline = TwoRanks();
  for (auto& list : timeline.micro_batches) {
    for (TimedMicroBatch& timed : list) {
      if (timed.ring >= 0) timed.load.head_parallel = 2;
    }
  }
  EXPECT_THAT(SvgTimeline(timeline, 9, ""), HasSubstr(">ring of 2, heads by 2<"));
}

TEST(PlanDrawingTest, ThousandsOfRanksStayReadable) {
  PlanRequest request{*DrawLengths({"github", 8 << 20}), 4096, 8192};
  request.cost = {8.0e-9, 1.055e-4, 2.23e-5, 1.92e-3, 8.0e-3, {}};
  const StepPlan plan = *(*CreatePlanner("skyline"))->Plan(request);
  const PlanTimeline timeline = TimelineOf(plan, *IntegerCostModel::Create(request.cost, 4096));
  const std::string svg = SvgTimeline(timeline, 1, "many");
  EXPECT_LT(std::count(svg.begin(), svg.end(), '\n'), 20000);
  EXPECT_THAT(svg, HasSubstr("each row shows one of about 9 ranks"));
}

TEST(PlanDrawingTest, AnEmptyPlanDraws) {
  PlanTimeline timeline;
  timeline.micro_batches.resize(1);
  EXPECT_EQ(TextTimeline(timeline, 3), "    0 |...|\n");
  EXPECT_THAT(SvgTimeline(timeline, 0, ""), HasSubstr("</svg>"));
}

}  // namespace
}  // namespace longspan
