// SpeedupPlot: curves of speed-up by context as an SVG file, without any library.
#ifndef LONGSPAN_LAUNCH_SPEEDUP_PLOT_H_
#define LONGSPAN_LAUNCH_SPEEDUP_PLOT_H_

#include <string>
#include <vector>

namespace longspan {

struct SpeedupCurve {
  std::string label;
  bool dashed = false;         // published numbers, beside ours
  int color = 0;               // curves of one number have one colour
  std::vector<double> values;  // by context; 0: none
};

struct SpeedupPanel {
  std::string title;
  std::vector<SpeedupCurve> curves;
};

// Panels side by side with one scale; `contexts` are the ticks of the x axis. The text of an SVG
// file.
std::string SpeedupPlot(const std::vector<std::string>& contexts,
                        const std::vector<SpeedupPanel>& panels);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_SPEEDUP_PLOT_H_
