// The options that choose a cost model, shared by the commands that plan without a run.
#ifndef LONGSPAN_LAUNCH_COST_OPTIONS_H_
#define LONGSPAN_LAUNCH_COST_OPTIONS_H_

#include <string>

#include "absl/status/statusor.h"
#include "launch/command_line.h"
#include "parallel/cost_model.h"

namespace longspan {

// --cost FILE | --gpu NAME --model NAME [--tensor-parallel N]
struct CostOptions {
  std::string file, gpu, model;
  int tensor_parallel = 0;  // 0: not given
};

// `options` must outlive the parsing.
void AddCostOptions(const Command& command, CostOptions& options);

struct ChosenCost {
  CostModel cost;
  std::string name;         // "cost.json", "llama-7b on h100": for tables
  std::string assumptions;  // lines for standard error, each ended
};

// Nothing given: bytescale-7b, which `assumptions` says. InvalidArgument: options that do not go
// together, unknown names, with those there are; and what is wrong with the file.
absl::StatusOr<ChosenCost> ChooseCost(const CostOptions& options);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_COST_OPTIONS_H_
