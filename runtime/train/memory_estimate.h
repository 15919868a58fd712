// MemoryEstimate: what one rank of a run will hold in the memory of its device and of its host,
// before there is a device.
#ifndef LONGSPAN_RUNTIME_TRAIN_MEMORY_ESTIMATE_H_
#define LONGSPAN_RUNTIME_TRAIN_MEMORY_ESTIMATE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernels/device/stream.h"
#include "parallel/parameter_layout.h"
#include "parallel/plan.h"
#include "runtime/model/model_config.h"
#include "runtime/train/run_config.h"

namespace longspan {

// Bytes by the tags of the rank's MemoryTable. A rank on a CPU has all in its host's memory.
// Not counted: memory for rings, which depends on who shares what; what attention and matrix
// products on a GPU want beyond a fixed workspace; pools of checkpoint tiers; the program itself.
struct MemoryEstimate {
  std::map<std::string, int64_t> device, host;

  int64_t device_bytes() const;
  int64_t host_bytes() const;
  // On either side.
  int64_t Of(const std::string& tag) const;
};

// The rows that one rank's buffers must hold, as plans say. Plans in the order of the run: what
// grows depends on it.
class RowsOfRanks {
 public:
  explicit RowsOfRanks(int ranks) : room_(ranks, 0) {}
  void AddStep(const StepPlan& plan);
  // Of the rank with the most: rows in one step, and rows that there is room for.
  int64_t most_rows() const { return most_rows_; }
  int64_t most_room() const;

 private:
  std::vector<int64_t> room_;  // by rank
  int64_t most_rows_ = 0;
};

// Of the rank with the most, on a device of this kind. `steps`, `evaluation`: what training and
// the validation loss need.
MemoryEstimate EstimateMemory(const RunConfig& config, const ModelConfig& model,
                              const ParameterLayout& layout, const RowsOfRanks& steps,
                              const RowsOfRanks& evaluation, DeviceKind kind);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_MEMORY_ESTIMATE_H_
