#include "launch/schedule_plot.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace longspan {
namespace {

constexpr int64_t kColumns = 60, kLines = 12;
constexpr int64_t kWidth = 640, kHeight = 360, kLeft = 80, kRight = 20, kTop = 40, kBottom = 40;
constexpr int64_t kPoints = 1000;

double Largest(const std::vector<double>& values) {
  const double largest = *std::max_element(values.begin(), values.end());
  return largest > 0 ? largest : 1;
}

}  // namespace

std::string TextPlot(const std::vector<double>& values) {
  const int64_t steps = static_cast<int64_t>(values.size());
  const double largest = Largest(values);
  std::vector<std::string> lines(kLines, std::string(kColumns, ' '));
  for (int64_t column = 0; column < kColumns; ++column) {
    const double value = values[column * (steps - 1) / (kColumns - 1)];
    const int64_t line = std::llround(value / largest * (kLines - 1));
    lines[kLines - 1 - line][column] = '*';
  }
  std::string text;
  for (int64_t line = 0; line < kLines; ++line) {
    const bool marked = line == 0 || line == kLines - 1;
    const std::string mark = line == 0 ? absl::StrFormat("%.3g", largest) : marked ? "0" : "";
    absl::StrAppend(&text, absl::StrFormat("%9s |%s\n", mark, lines[line]));
  }
  absl::StrAppend(&text, absl::StrFormat("%9s +%s\n", "", std::string(kColumns, '-')),
                  absl::StrFormat("%9s  0%*d\n", "step", kColumns - 1, steps - 1));
  return text;
}

std::string SvgPlot(const std::vector<double>& values, const std::string& title) {
  const int64_t steps = static_cast<int64_t>(values.size());
  const int64_t points = std::min(steps, kPoints);
  const double largest = Largest(values);
  const double width = kWidth - kLeft - kRight, height = kHeight - kTop - kBottom;
  const int64_t right = kWidth - kRight, bottom = kHeight - kBottom;
  std::string curve;
  for (int64_t i = 0; i < points; ++i) {
    const int64_t step = points == 1 ? 0 : i * (steps - 1) / (points - 1);
    const double x = kLeft + width * static_cast<double>(step) /
                                 static_cast<double>(std::max<int64_t>(1, steps - 1));
    const double y = kTop + height * (1 - values[step] / largest);
    absl::StrAppend(&curve, i == 0 ? "" : " ", absl::StrFormat("%.1f,%.1f", x, y));
  }
  const std::string name =
      absl::StrReplaceAll(title, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
  return absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
      "<text x=\"%d\" y=\"24\" font-size=\"14\">%s</text>\n"
      "<path d=\"M%d %d V%d H%d\" fill=\"none\" stroke=\"black\"/>\n"
      "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%.3g</text>\n"
      "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">0</text>\n"
      "<text x=\"%d\" y=\"%d\">step 0</text>\n"
      "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%d</text>\n"
      "<polyline points=\"%s\" fill=\"none\" stroke=\"#1f77b4\" stroke-width=\"2\"/>\n"
      "</svg>\n",
      kWidth, kHeight, kLeft, name, kLeft, kTop, bottom, right, kLeft - 6, kTop + 4, largest,
      kLeft - 6, bottom + 4, kLeft, bottom + 20, right, bottom + 20, steps - 1, curve);
}

absl::Status WriteSvgPlot(const std::string& path, const std::vector<double>& values,
                          const std::string& title) {
  std::ofstream file(path);
  file << SvgPlot(values, title);
  file.close();
  return file ? absl::OkStatus()
              : absl::PermissionDeniedError(absl::StrCat(path, ": cannot write"));
}

}  // namespace longspan
