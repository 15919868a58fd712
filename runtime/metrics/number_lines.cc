#include "runtime/metrics/number_lines.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace longspan {

absl::StatusOr<std::vector<double>> ReadNumberLines(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot read"));
  std::vector<double> numbers;
  int64_t line_number = 0;
  for (std::string line; std::getline(file, line);) {
    ++line_number;
    line.resize(std::min(line.size(), line.find('#')));
    const std::string text(absl::StripAsciiWhitespace(line));
    if (text.empty()) continue;
    double number = 0;
    if (!absl::SimpleAtod(text, &number)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", line_number, ": \"", text.substr(0, 40), "\" is not a number"));
    }
    numbers.push_back(number);
  }
  // A folder opens, but does not read.
  if (file.bad()) return absl::NotFoundError(absl::StrCat(path, ": cannot read"));
  if (numbers.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": has no numbers"));
  return numbers;
}

}  // namespace longspan
