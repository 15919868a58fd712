#include "parallel/plan_drawing.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace longspan {
namespace {

constexpr int kMostRows = 480;
constexpr double kLeft = 70, kTop = 60, kWidth = 1000, kHeight = 480;
// Narrower gaps and boxes than this, in pixels, are not told apart.
constexpr double kHairline = 0.4;

char LetterOf(int64_t ring) {
  constexpr char kLetters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  return kLetters[ring % 52];
}

// Widths that differ by a factor of two have colours a step apart, from blue for two ranks to red.
std::string ColourOf(int members) {
  const int hue = std::max(0, 220 - static_cast<int>(std::lround(18 * (std::log2(members) - 1))));
  return absl::StrCat("hsl(", hue, ",65%,60%)");
}

std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

// A rectangle over rows [first, last].
struct Box {
  int64_t ring;
  int members, head_parallel;
  int first, last;
  double begin, end;  // seconds
};

std::vector<Box> BoxesOf(const PlanTimeline& timeline, int rows, double hairline_seconds) {
  const int64_t ranks = static_cast<int64_t>(timeline.micro_batches.size());
  std::vector<Box> boxes;
  std::map<int64_t, size_t> open;  // by ring: its box that ends at the row before
  for (int row = 0; row < rows; ++row) {
    std::map<int64_t, size_t> here;
    bool joins = false;  // the last box is a whole one of this row
    for (const TimedMicroBatch& timed : timeline.micro_batches[row * ranks / rows]) {
      const double begin = IntegerCostModel::Seconds(timed.start);
      const double end = IntegerCostModel::Seconds(timed.end);
      if (timed.ring >= 0) {
        const auto above = open.find(timed.ring);
        if (above != open.end()) {
          here[timed.ring] = above->second;
          boxes[above->second].last = row;
        } else {
          here[timed.ring] = boxes.size();
          boxes.push_back(
              {timed.ring, timed.load.members, timed.load.head_parallel, row, row, begin, end});
        }
        joins = false;
      } else if (joins && end - begin < hairline_seconds * 10 &&
                 begin - boxes.back().end < hairline_seconds) {
        boxes.back().end = end;
      } else {
        boxes.push_back({-1, 1, 1, row, row, begin, end});
        joins = true;
      }
    }
    open = std::move(here);
  }
  return boxes;
}

}  // namespace

std::string TextTimeline(const PlanTimeline& timeline, int columns) {
  std::string text;
  for (size_t rank = 0; rank < timeline.micro_batches.size(); ++rank) {
    std::string line(columns, '.');
    for (const TimedMicroBatch& timed : timeline.micro_batches[rank]) {
      for (int column = 0; column < columns; ++column) {
        const PlanningTime middle = timeline.makespan * (2 * column + 1) / (2 * columns);
        if (middle < timed.start || middle >= timed.end) continue;
        line[column] = timed.ring < 0 ? '=' : LetterOf(timed.ring);
      }
    }
    absl::StrAppendFormat(&text, "%5d |%s|\n", rank, line);
  }
  return text;
}

std::string SvgTimeline(const PlanTimeline& timeline, double lower_bound_seconds,
                        const std::string& title) {
  const int ranks = static_cast<int>(timeline.micro_batches.size());
  const int rows = std::min(ranks, kMostRows);
  const double makespan = IntegerCostModel::Seconds(timeline.makespan);
  const double pixels_a_second = makespan > 0 ? kWidth / makespan : 0;
  const double row_height = std::min(24.0, kHeight / std::max(rows, 1));
  const double height = row_height * rows;
  const double hairline = pixels_a_second > 0 ? kHairline / pixels_a_second : 0;
  const std::vector<Box> boxes = BoxesOf(timeline, rows, hairline);

  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
      "<text x=\"%g\" y=\"20\" font-size=\"15\">%s</text>\n",
      kLeft + kWidth + 40, kTop + height + 60, kLeft, Escaped(title));
  std::map<std::pair<int, int>, int> widths;  // members, head_parallel
  const double outline = row_height >= 6 ? 0.5 : 0;
  for (const Box& box : boxes) {
    if (box.ring >= 0) ++widths[{box.members, box.head_parallel}];
    absl::StrAppendFormat(
        &svg,
        "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\" stroke=\"white\" "
        "stroke-width=\"%g\"/>\n",
        kLeft + box.begin * pixels_a_second, kTop + box.first * row_height,
        std::max(kHairline, (box.end - box.begin) * pixels_a_second),
        (box.last - box.first + 1) * row_height, box.ring < 0 ? "#b8b8b8" : ColourOf(box.members),
        outline);
  }
  absl::StrAppendFormat(&svg,
                        "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%.2f\" fill=\"none\" "
                        "stroke=\"#444\"/>\n",
                        kLeft, kTop, kWidth, height);
  if (lower_bound_seconds > 0 && lower_bound_seconds <= makespan) {
    const double x = kLeft + lower_bound_seconds * pixels_a_second;
    absl::StrAppendFormat(&svg,
                          "<line x1=\"%.2f\" x2=\"%.2f\" y1=\"%g\" y2=\"%.2f\" stroke=\"black\" "
                          "stroke-dasharray=\"4 3\"/>\n",
                          x, x, kTop - 6, kTop + height + 6);
  }
  for (int tick = 0; tick <= 5; ++tick) {
    absl::StrAppendFormat(&svg,
                          "<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"middle\">%.3g s</text>\n",
                          kLeft + kWidth * tick / 5, kTop + height + 20, makespan * tick / 5);
  }
  absl::StrAppendFormat(&svg,
                        "<text x=\"%g\" y=\"%g\" text-anchor=\"end\">rank 0</text>\n"
                        "<text x=\"%g\" y=\"%.2f\" text-anchor=\"end\">%d</text>\n",
                        kLeft - 6, kTop + 10, kLeft - 6, kTop + std::max(height, 22.0), ranks - 1);

  // The legend: a few widths, or of many the smallest, the largest and some between.
  double x = kLeft;
  const auto legend = [&](const std::string& colour, const std::string& text) {
    absl::StrAppendFormat(&svg,
                          "<rect x=\"%g\" y=\"32\" width=\"12\" height=\"12\" fill=\"%s\"/>"
                          "<text x=\"%g\" y=\"43\">%s</text>\n",
                          x, colour, x + 16, text);
    x += 28 + 7.0 * static_cast<double>(text.size());
  };
  legend("#b8b8b8", "whole sequences");
  size_t index = 0, shown = 0;
  for (const auto& [width, count] : widths) {
    // Evenly spread, the last one included.
    if (widths.size() <= 8 || index * 7 >= shown * (widths.size() - 1)) {
      legend(ColourOf(width.first),
             absl::StrCat("ring of ", width.first,
                          width.second == 1 ? "" : absl::StrCat(", heads by ", width.second)));
      ++shown;
    }
    ++index;
  }
  absl::StrAppendFormat(&svg, "<text x=\"%g\" y=\"%.2f\">dashed: lower bound%s</text>\n</svg>\n",
                        kLeft, kTop + height + 45,
                        rows == ranks ? ""
                                      : absl::StrCat("; each row shows one of about ",
                                                     (ranks + rows / 2) / rows, " ranks"));
  return svg;
}

}  // namespace longspan
