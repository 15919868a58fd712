#include "runtime/cost/known_devices.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace longspan {
namespace {

constexpr double kTera = 1e12, kGiga = 1e9;

// llm.c trains GPT-2 1.5B on 8 H100 at 48.5K tokens/s a GPU, 48% of the sheet's rate
// (github.com/karpathy/llm.c, discussion 677). Nothing comparable with all its conditions known was
// found for the others, so they are assumed to achieve the same share.
constexpr double kLinearShare = 0.48;

constexpr KnownDevice kDevices[] = {
    // Sheet, NVLink: NVIDIA A100 data sheet (SXM, 80 GB): 312 TFLOP/s, 600 GB/s both ways. Network:
    // DGX A100 data sheet, eight HDR ports of 200 Gbit/s. Attention: FlashAttention-2
    // (arXiv 2307.08691), up to 73% of the peak forward and 63% backward.
    {"a100", 312 * kTera, kLinearShare, 0.73 * 312 * kTera, 0.63 * 312 * kTera, 25 * kGiga,
     300 * kGiga, 2, "attention measured (FlashAttention-2, best case)"},
    // Sheet, NVLink: NVIDIA H100 data sheet (SXM): 1979 TFLOP/s with sparsity, 900 GB/s both ways.
    // Network: DGX H100 data sheet, eight ports of 400 Gbit/s. Attention: FlashAttention-3
    // (arXiv 2407.08608), causal, head size 128, 8K tokens.
    {"h100", 989.4 * kTera, kLinearShare, 685 * kTera, 539 * kTera, 50 * kGiga, 450 * kGiga, 2,
     "linear and attention measured (llm.c; FlashAttention-3)"},
    // Sheet: NVIDIA H200 data sheet (SXM), the compute rate of the H100. Network: DGX H200 data
    // sheet. Attention: cuDNN 9.19 on an H200, causal, head size 128, 8K tokens.
    {"h200", 989.4 * kTera, kLinearShare, 644 * kTera, 541 * kTera, 50 * kGiga, 450 * kGiga, 2,
     "attention measured (cuDNN 9.19)"},
    // Sheet, NVLink: NVIDIA HGX B200: 36 PFLOP/s with sparsity for eight, 1.8 TB/s both ways.
    // Network: DGX B200 data sheet, eight ports of 400 Gbit/s. Attention: the best published is
    // 1605 TFLOP/s (FlashAttention-4, together.ai/blog/flashattention-4), taken as the forward
    // pass; the backward pass is assumed to be slower by as much as on the H100.
    {"b200", 2250 * kTera, kLinearShare, 1605 * kTera, 1605.0 * 539 / 685 * kTera, 50 * kGiga,
     900 * kGiga, 2, "attention measured forward (FlashAttention-4, best case), else assumed"},
    // One core of a few years ago and memory that ranks of one machine share, as the planner of
    // training assumes them: nominal, not of any processor. Its rate is an achieved one.
    {"cpu-core", 50 * kGiga, 1.0, 50 * kGiga, 50 * kGiga, 5 * kGiga, 5 * kGiga, 4,
     "nominal: measure yours with longspan profile"},
};

}  // namespace

absl::StatusOr<KnownDevice> DeviceByName(const std::string& name) {
  for (const KnownDevice& device : kDevices) {
    if (name == device.name) return device;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown device \"", name, "\"; there is: ", absl::StrJoin(KnownDeviceNames(), ", ")));
}

std::vector<std::string> KnownDeviceNames() {
  std::vector<std::string> names;
  for (const KnownDevice& device : kDevices) names.push_back(device.name);
  return names;
}

}  // namespace longspan
