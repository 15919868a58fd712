#include "runtime/train/evaluation.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/device/trace.h"
#include "runtime/model/attention_pattern.h"

namespace longspan {

absl::StatusOr<Evaluation> Evaluation::Create(const Dataset& data, int64_t tokens,
                                              const Planner& planner, PlanRequest request,
                                              const AttentionOptions& attention, int rank,
                                              MemoryTable& memory) {
  Evaluation evaluation;
  evaluation.attention_ = attention;
  const std::vector<SequenceRef>& all = data.validation();
  const int64_t total =
      std::accumulate(all.begin(), all.end(), int64_t{0},
                      [](int64_t sum, const SequenceRef& s) { return sum + s.length; });
  const int64_t stride = std::max<int64_t>(1, (total + tokens - 1) / tokens);
  std::vector<SequenceRef> chosen;
  for (size_t i = 0; i < all.size(); i += static_cast<size_t>(stride)) {
    chosen.push_back(all[i]);
    request.lengths.push_back(all[i].length);
  }
  if (chosen.empty()) return evaluation;
  absl::StatusOr<StepPlan> plan = planner.Plan(request);
  if (!plan.ok()) return plan.status();
  evaluation.plan_ = *std::move(plan);
  absl::StatusOr<std::vector<MicroBatchInputs>> inputs =
      ReadStepInputs(evaluation.plan_, rank, chosen, data, memory);
  if (!inputs.ok()) return inputs.status();
  evaluation.inputs_ = *std::move(inputs);
  return evaluation;
}

absl::StatusOr<double> Evaluation::Run(Transformer& model, const Weights& weights,
                                       TensorView losses, Transport& transport,
                                       RingWorkspace& workspace, Stream& stream) {
  auto sum = std::make_shared<double>(0.0);
  std::vector<std::unique_ptr<PlannedAttention>> patterns;  // alive while the work is queued
  int32_t micro_batch = 0;
  for (const MicroBatchInputs& inputs : inputs_) {
    const StreamSpan span(
        stream, {.name = "micro-batch", .kind = TraceKind::kTask, .micro_batch = micro_batch++});
    patterns.push_back(std::make_unique<PlannedAttention>(inputs.ring, inputs.whole, attention_,
                                                          transport, workspace));
    const TensorView rows = losses.Slice(0, 0, inputs.batch.rows());
    absl::Status status = model.Evaluate(inputs.batch, *patterns.back(), weights, rows, stream);
    if (!status.ok()) return status;
    QueueLossSum(rows, sum, stream);
  }
  transport.AllReduceSum(TensorView::Of(sum.get(), {1}), stream);
  if (absl::Status status = stream.Synchronize(); !status.ok()) return status;
  return *sum / static_cast<double>(tokens());
}

void QueueLossSum(TensorView losses, std::shared_ptr<double> sum, Stream& stream) {
  stream.Launch("loss sum", [losses, sum = std::move(sum)] {
    const float* values = losses.data<float>();
    *sum = std::accumulate(values, values + losses.elements(), *sum);
  });
}

}  // namespace longspan
