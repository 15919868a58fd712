// Numbers in a text file, one a line: learning rates, gradient norms.
#ifndef LONGSPAN_RUNTIME_METRICS_NUMBER_LINES_H_
#define LONGSPAN_RUNTIME_METRICS_NUMBER_LINES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longspan {

// "nan" and "inf" are numbers here; what follows a '#' and empty lines are left out. NotFound: the
// file cannot be read. InvalidArgument: a line is not a number (the message names it), or there is
// none.
absl::StatusOr<std::vector<double>> ReadNumberLines(const std::string& path);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_METRICS_NUMBER_LINES_H_
