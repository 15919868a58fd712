#include "runtime/train/evaluation.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/device/trace.h"
#include "runtime/model/attention_pattern.h"

namespace longspan {

std::vector<SequenceRef> Evaluation::Choose(const Dataset& data, int64_t tokens) {
  const std::vector<SequenceRef>& all = data.validation();
  const int64_t total =
      std::accumulate(all.begin(), all.end(), int64_t{0},
                      [](int64_t sum, const SequenceRef& s) { return sum + s.length; });
  const int64_t stride = std::max<int64_t>(1, (total + tokens - 1) / tokens);
  std::vector<SequenceRef> chosen;
  for (size_t i = 0; i < all.size(); i += static_cast<size_t>(stride)) chosen.push_back(all[i]);
  return chosen;
}

absl::StatusOr<Evaluation> Evaluation::Create(const Dataset& data, int64_t tokens,
                                              const Planner& planner, PlanRequest request,
                                              const AttentionOptions& attention, int rank,
                                              Device& device) {
  Evaluation evaluation;
  evaluation.attention_ = attention;
  const std::vector<SequenceRef> chosen = Choose(data, tokens);
  for (const SequenceRef& sequence : chosen) request.lengths.push_back(sequence.length);
  if (chosen.empty()) return evaluation;
  absl::StatusOr<StepPlan> plan = planner.Plan(request);
  if (!plan.ok()) return plan.status();
  evaluation.plan_ = *std::move(plan);
  absl::StatusOr<std::vector<MicroBatchInputs>> inputs =
      ReadStepInputs(evaluation.plan_, rank, chosen, data, device.memory());
  if (!inputs.ok()) return inputs.status();
  evaluation.inputs_ = *std::move(inputs);
  absl::Status status = evaluation.buffers_.Take(evaluation.inputs_, device);
  if (!status.ok()) return status;
  return evaluation;
}

absl::StatusOr<double> Evaluation::Run(Transformer& model, const Weights& weights,
                                       Transport& transport, RingWorkspace& workspace,
                                       Stream& stream, Stream& host) {
  auto sum = std::make_shared<double>(0.0);
  std::vector<std::unique_ptr<PlannedAttention>> patterns;  // alive while the work is queued
  Event summed;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const MicroBatchInputs& inputs = inputs_[i];
    const StreamSpan span(
        stream,
        {.name = "micro-batch", .kind = TraceKind::kTask, .micro_batch = static_cast<int32_t>(i)});
    patterns.push_back(std::make_unique<PlannedAttention>(inputs.ring, inputs.whole, attention_,
                                                          transport, workspace));
    absl::Status status =
        model.Evaluate(inputs.batch, *patterns.back(), weights, buffers_.Losses(i), stream);
    if (!status.ok()) return status;
    summed = buffers_.QueueLossSum(i, sum, stream);
  }
  if (stream.kind() != DeviceKind::kCpu) host.WaitFor(summed);
  transport.AllReduceSum(TensorView::Of(sum.get(), {1}), host);
  absl::Status status = stream.Synchronize();
  status.Update(host.Synchronize());
  if (!status.ok()) return status;
  return *sum / static_cast<double>(tokens());
}

}  // namespace longspan
