#include "launch/speedup_plot.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace longspan {
namespace {

// Pixels.
constexpr double kPanelWidth = 420, kPlotHeight = 300, kLeft = 48, kTop = 40, kRight = 16,
                 kLineHeight = 17;
constexpr const char* kColors[] = {"#1b6ca8", "#d1495b", "#2e933c", "#8a4fbf",
                                   "#c77d0a", "#3d3d3d", "#00868b", "#b0479a"};

std::string Escape(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

std::string Text(double x, double y, const std::string& anchor, const std::string& text) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor,
                         Escape(text));
}

std::string Line(double x1, double y1, double x2, double y2, const std::string& style) {
  return absl::StrFormat("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2,
                         y2, style);
}

// 1, 2 or 5 times a power of ten, so that at most eight ticks are needed.
double TickDistance(double top) {
  double distance = std::pow(10, std::floor(std::log10(top)) - 1);
  for (int i = 0; top / distance > 8; ++i) distance *= i % 3 == 1 ? 2.5 : 2;
  return distance;
}

}  // namespace

std::string SpeedupPlot(const std::vector<std::string>& contexts,
                        const std::vector<SpeedupPanel>& panels) {
  double top = 1;
  size_t most_curves = 0;
  for (const SpeedupPanel& panel : panels) {
    most_curves = std::max(most_curves, panel.curves.size());
    for (const SpeedupCurve& curve : panel.curves) {
      for (const double value : curve.values) top = std::max(top, value);
    }
  }
  const double tick = TickDistance(top);
  top = std::ceil(top / tick) * tick;
  const double bottom = kTop + kPlotHeight;
  const double width = kPanelWidth * static_cast<double>(panels.size());
  const double height = bottom + 48 + kLineHeight * static_cast<double>(most_curves);
  const auto y_of = [&](double value) { return bottom - value / top * kPlotHeight; };

  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" "
      "fill=\"white\"/>\n",
      width, height);
  for (size_t p = 0; p < panels.size(); ++p) {
    const double left = kPanelWidth * static_cast<double>(p) + kLeft;
    const double right = kPanelWidth * static_cast<double>(p + 1) - kRight;
    const auto x_of = [&](size_t i) {
      return left +
             (right - left) * (static_cast<double>(i) + 0.5) / static_cast<double>(contexts.size());
    };
    absl::StrAppend(&svg,
                    Text((left + right) / 2, kTop - 16, "middle",
                         absl::StrCat(panels[p].title, ": speed-up over static, by context")));
    for (int i = 0; tick * i <= top * 1.001; ++i) {
      absl::StrAppend(&svg, Line(left, y_of(tick * i), right, y_of(tick * i), "stroke=\"#ddd\""),
                      Text(left - 6, y_of(tick * i) + 4, "end", absl::StrFormat("%g", tick * i)));
    }
    for (size_t i = 0; i < contexts.size(); ++i) {
      absl::StrAppend(&svg, Text(x_of(i), bottom + 18, "middle", contexts[i]));
    }
    for (size_t c = 0; c < panels[p].curves.size(); ++c) {
      const SpeedupCurve& curve = panels[p].curves[c];
      const std::string style =
          absl::StrFormat("stroke=\"%s\" stroke-width=\"2\"%s",
                          kColors[static_cast<size_t>(curve.color) % std::size(kColors)],
                          curve.dashed ? " stroke-dasharray=\"5 4\"" : "");
      std::string points, marks;
      for (size_t i = 0; i < curve.values.size(); ++i) {
        if (curve.values[i] <= 0) continue;
        absl::StrAppendFormat(&points, "%.1f,%.1f ", x_of(i), y_of(curve.values[i]));
        absl::StrAppendFormat(&marks,
                              "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"white\" %s/>\n",
                              x_of(i), y_of(curve.values[i]), style);
      }
      const double y = bottom + 40 + kLineHeight * static_cast<double>(c);
      absl::StrAppend(&svg, "<polyline fill=\"none\" ", style, " points=\"", points, "\"/>\n",
                      marks, Line(left, y - 4, left + 30, y - 4, style),
                      Text(left + 38, y, "start", curve.label));
    }
  }
  return absl::StrCat(svg, "</svg>\n");
}

}  // namespace longspan
