// Cost models from tables of devices and models, so that a cluster nobody has can be planned for.
#ifndef LONGSPAN_RUNTIME_COST_COST_ESTIMATE_H_
#define LONGSPAN_RUNTIME_COST_COST_ESTIMATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/cost_model.h"

namespace longspan {

// The case study of arXiv 2502.21231: a 7B model on its own GPUs, tensor parallelism included.
inline constexpr char kBytescaleModel[] = "bytescale-7b";

struct CostRequest {
  std::string device;       // empty for kBytescaleModel alone
  std::string model;        // of CostModelNames()
  int tensor_parallel = 1;  // devices a rank; divides compute and ring traffic
};

struct CostEstimate {
  CostModel cost;           // with the numbers of heads of a device; none are split (most = 1)
  std::string assumptions;  // lines of text, each ended
};

// InvalidArgument: an unknown name, with those there are; a tensor_parallel that does not divide
// the model's heads; a device or tensor_parallel beside kBytescaleModel.
absl::StatusOr<CostEstimate> EstimateCost(const CostRequest& request);

// kBytescaleModel first.
std::vector<std::string> CostModelNames();

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_COST_COST_ESTIMATE_H_
