#include "launch/cost_options.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/cost/cost_estimate.h"
#include "runtime/cost/cost_file.h"
#include "runtime/cost/known_devices.h"

namespace longspan {

void AddCostOptions(const Command& command, CostOptions& options) {
  command.AddOption("--cost", options.file, "cost model from a file (longspan profile makes one)")
      .Group("Cost model");
  command
      .AddOption("--gpu", options.gpu,
                 absl::StrCat("estimated for a device: ", absl::StrJoin(KnownDeviceNames(), ", ")))
      .Group("Cost model");
  command
      .AddOption("--model", options.model,
                 absl::StrCat("... and a model: ", absl::StrJoin(CostModelNames(), ", "),
                              "; default ", kBytescaleModel, ", which needs no --gpu"))
      .Group("Cost model");
  command
      .AddOption("--tensor-parallel", options.tensor_parallel,
                 "with --gpu: devices a rank (default 1)")
      .InRange(1, 1024)
      .Group("Cost model");
}

absl::StatusOr<ChosenCost> ChooseCost(const CostOptions& options) {
  if (!options.file.empty()) {
    if (!options.gpu.empty() || !options.model.empty() || options.tensor_parallel != 0) {
      return absl::InvalidArgumentError(
          "--cost has all coefficients: leave --gpu, --model and --tensor-parallel out");
    }
    absl::StatusOr<CostModel> cost = ReadCostFile(options.file);
    if (!cost.ok()) return cost.status();
    return ChosenCost{*std::move(cost), options.file,
                      absl::StrCat("cost model: ", options.file, "\n")};
  }
  CostRequest request{options.gpu, options.model,
                      options.tensor_parallel == 0 ? 1 : options.tensor_parallel};
  const bool by_default =
      options.gpu.empty() && options.model.empty() && options.tensor_parallel == 0;
  if (by_default) request.model = kBytescaleModel;
  if (request.model.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.gpu.empty() ? "--tensor-parallel" : "--gpu",
                     " needs --model; there is: ", absl::StrJoin(CostModelNames(), ", ")));
  }
  if (request.device.empty() && request.model != kBytescaleModel) {
    return absl::InvalidArgumentError(
        absl::StrCat("--model ", request.model,
                     " needs --gpu; there is: ", absl::StrJoin(KnownDeviceNames(), ", ")));
  }
  absl::StatusOr<CostEstimate> estimate = EstimateCost(request);
  if (!estimate.ok()) return estimate.status();
  ChosenCost chosen{
      estimate->cost,
      request.device.empty() ? request.model : absl::StrCat(request.model, " on ", request.device),
      estimate->assumptions};
  if (request.tensor_parallel > 1) absl::StrAppend(&chosen.name, " x ", request.tensor_parallel);
  if (by_default) {
    absl::StrAppend(&chosen.assumptions,
                    "  by default; choose another with --cost FILE or --gpu NAME --model NAME\n");
  }
  return chosen;
}

}  // namespace longspan
