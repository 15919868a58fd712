// A curve over the steps of a run, as text and as SVG.
#ifndef LONGSPAN_LAUNCH_SCHEDULE_PLOT_H_
#define LONGSPAN_LAUNCH_SCHEDULE_PLOT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace longspan {

// About 70 columns and 14 lines, axes with numbers. values: one for each step, not empty, >= 0.
std::string TextPlot(const std::vector<double>& values);

// A picture with axes and `title`.
std::string SvgPlot(const std::vector<double>& values, const std::string& title);

// PermissionDenied: `path` cannot be written.
absl::Status WriteSvgPlot(const std::string& path, const std::vector<double>& values,
                          const std::string& title);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_SCHEDULE_PLOT_H_
