// Cost files: a CostModel on disk, in the public JSON form.
#ifndef LONGSPAN_RUNTIME_COST_COST_FILE_H_
#define LONGSPAN_RUNTIME_COST_COST_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/cost_model.h"

namespace longspan {

// NotFound: the file cannot be read. InvalidArgument names file and key (CostModelFromJson).
absl::StatusOr<CostModel> ReadCostFile(const std::string& path);

// Replaces the file. PermissionDenied when it cannot be written.
absl::Status WriteCostFile(const CostModel& cost, const std::string& path);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_COST_COST_FILE_H_
