#include "runtime/cost/cost_estimate.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "runtime/cost/known_devices.h"
#include "runtime/cost/known_models.h"

namespace longspan {
namespace {

// Achieved of a link's line rate: assumed. The case study of arXiv 2502.21231 moves 8192 tokens of
// K and V in BF16, half of a 7B model's heads a GPU, in 1.9 ms: 35 GB/s, which would be 70% of a
// port of 400 Gbit/s.
constexpr double kLinkShare = 0.7;

CostEstimate Bytescale() {
  // By layer and u = length / 8192, forward: linear 9u/d ms, attention 2.8u^2/d ms,
  // ring 1.9u(d-1)/d ms; backward twice that; 32 layers. 20 us a ring step, layer and pass; 8 ms a
  // micro-batch. Rounded as the public format's example has them.
  CostModel cost{8.0e-9, 1.055e-4, 2.23e-5, 1.92e-3, 8.0e-3, {}};
  cost.heads.kv_heads = 16;
  return {
      cost,
      "cost model: bytescale-7b, calibrated on the case study of arXiv 2502.21231: a 7B model of "
      "32 layers, tensor parallelism\n"
      "  of the paper's cluster included, backward twice forward, 20 us a ring step, layer and "
      "pass, 8 ms a micro-batch\n"};
}

CostModel FromRates(const ModelConfig& model, const KnownDevice& device, int tensor_parallel) {
  const double ranks_devices = tensor_parallel;
  const double width = static_cast<double>(model.width);
  const double kv_width = static_cast<double>(model.kv_width());
  const double layers = model.layers;
  CostModel cost;
  cost.attention_seconds_per_pair =
      layers * width * (4 / device.attention_forward_flops + 10 / device.attention_backward_flops) /
      ranks_devices;
  // Tensor parallelism sums the residual stream twice a layer, forward and backward: an all-reduce
  // sends 2 * (t - 1) / t of its bytes. Not hidden behind anything.
  const double reduced_bytes =
      layers * 4 * 2 * (ranks_devices - 1) / ranks_devices * width * device.value_bytes;
  cost.linear_seconds_per_token =
      6.0 * static_cast<double>(model.MatmulParameters()) /
          (device.linear_share * device.sheet_flops_per_second * ranks_devices) +
      reduced_bytes / (kLinkShare * device.node_link_bytes_per_second);
  // K and V travel forward and backward, their FP32 gradients backward. Each device of a rank moves
  // its own heads; KV heads that are fewer than the devices are held by several of them.
  const double kv_bytes = 2 * kv_width * (2 * device.value_bytes + 4);
  cost.ring_seconds_per_token = layers * kv_bytes / std::min(tensor_parallel, model.kv_heads) /
                                (kLinkShare * device.network_bytes_per_second);
  cost.ring_step_seconds = kRingStepSecondsPerLayer * layers;
  cost.micro_batch_seconds = kMicroBatchSecondsPerLayer * layers;
  // Of one device of a rank.
  cost.heads.kv_heads = std::max(1, model.kv_heads / tensor_parallel);
  cost.heads.queries_per_kv = std::max(1, model.heads / tensor_parallel) / cost.heads.kv_heads;
  return cost;
}

std::string Assumptions(const CostRequest& request, const ModelConfig& model,
                        const KnownDevice& device) {
  std::string text = absl::StrFormat(
      "cost model: estimated for %s on %s, %d a rank (%s)\n"
      "  model     %d layers, width %d, %d KV heads, %.2fe9 matmul parameters that a token meets; "
      "%s\n"
      "  linear    %.0f%% of the sheet's %.0f TFLOP/s, 6 operations a parameter and token\n"
      "  attention forward %.0f, backward %.0f TFLOP/s achieved, 4 and 10 operations a pair and "
      "value of width\n"
      "  ring      K and V twice, FP32 gradients once, over the network: %.0f%% of %.1f GB/s a "
      "device; 20 us a step, layer and pass, backward twice\n",
      request.model, request.device, request.tensor_parallel, device.source, model.layers,
      model.width, model.kv_heads, static_cast<double>(model.MatmulParameters()) * 1e-9,
      device.value_bytes == 2 ? "BF16" : "FP32", 100 * device.linear_share,
      device.sheet_flops_per_second * 1e-12, device.attention_forward_flops * 1e-12,
      device.attention_backward_flops * 1e-12, 100 * kLinkShare,
      device.network_bytes_per_second * 1e-9);
  if (request.tensor_parallel > 1) {
    absl::StrAppendFormat(&text,
                          "  tensor    parallel over %d: four sums of the residual stream a layer, "
                          "%.0f%% of %.0f GB/s inside a node, not hidden\n",
                          request.tensor_parallel, 100 * kLinkShare,
                          device.node_link_bytes_per_second * 1e-9);
  }
  absl::StrAppendFormat(&text, "  fixed     %.2g ms a micro-batch\n",
                        1e3 * kMicroBatchSecondsPerLayer * model.layers);
  return text;
}

}  // namespace

absl::StatusOr<CostEstimate> EstimateCost(const CostRequest& request) {
  if (request.model == kBytescaleModel) {
    if (!request.device.empty() || request.tensor_parallel != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(kBytescaleModel,
                       " is calibrated on measured times of its own GPUs: leave the device and the "
                       "tensor-parallel degree out"));
    }
    return Bytescale();
  }
  const absl::StatusOr<ModelConfig> model = ModelByName(request.model);
  if (!model.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown model \"", request.model,
                     "\"; there is: ", absl::StrJoin(CostModelNames(), ", ")));
  }
  const absl::StatusOr<KnownDevice> device = DeviceByName(request.device);
  if (!device.ok()) return device.status();
  if (request.tensor_parallel < 1 || model->heads % request.tensor_parallel != 0) {
    return absl::InvalidArgumentError(absl::StrCat("a tensor-parallel degree of ",
                                                   request.tensor_parallel, " does not divide the ",
                                                   model->heads, " heads of ", request.model));
  }
  return CostEstimate{FromRates(*model, *device, request.tensor_parallel),
                      Assumptions(request, *model, *device)};
}

std::vector<std::string> CostModelNames() {
  std::vector<std::string> names = KnownModelNames();
  names.insert(names.begin(), kBytescaleModel);
  return names;
}

}  // namespace longspan
