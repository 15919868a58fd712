#include "runtime/cost/cost_file.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace longspan {

absl::StatusOr<CostModel> ReadCostFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::error_code error;
  // A directory opens, too.
  if (!file || std::filesystem::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot read the cost file"));
  }
  std::ostringstream text;
  text << file.rdbuf();
  return CostModelFromJson(text.str(), path);
}

absl::Status WriteCostFile(const CostModel& cost, const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << ToJson(cost) << "\n";
  file.close();
  return file ? absl::OkStatus()
              : absl::PermissionDeniedError(absl::StrCat(path, ": cannot write the cost file"));
}

}  // namespace longspan
