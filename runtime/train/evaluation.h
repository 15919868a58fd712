// Evaluation: the validation loss of a run, on sequences that are planned and read once.
#ifndef LONGSPAN_RUNTIME_TRAIN_EVALUATION_H_
#define LONGSPAN_RUNTIME_TRAIN_EVALUATION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/memory.h"
#include "kernels/device/stream.h"
#include "parallel/planner.h"
#include "parallel/ring_attention.h"
#include "parallel/transport/transport.h"
#include "runtime/data/dataset.h"
#include "runtime/model/transformer.h"
#include "runtime/model/weights.h"
#include "runtime/train/step_inputs.h"

namespace longspan {

class Evaluation {
 public:
  // Sequences evenly spread over the validation documents, of `tokens` targets at most or one in
  // all; `request` has all but the lengths. Not collective; the same on every rank.
  static absl::StatusOr<Evaluation> Create(const Dataset& data, int64_t tokens,
                                           const Planner& planner, PlanRequest request,
                                           const AttentionOptions& attention, int rank,
                                           Device& device);

  // The sequences that Create takes.
  static std::vector<SequenceRef> Choose(const Dataset& data, int64_t tokens);

  // Targets; 0: the data has no validation sequences, and Run must not be called.
  int64_t tokens() const { return plan_.total_tokens(); }

  // Collective, waits for both streams. The mean loss over all targets. `host`: a stream of the
  // CPU, or `stream` itself where that is one.
  absl::StatusOr<double> Run(Transformer& model, const Weights& weights, Transport& transport,
                             RingWorkspace& workspace, Stream& stream, Stream& host);

 private:
  AttentionOptions attention_;
  StepPlan plan_;
  std::vector<MicroBatchInputs> inputs_;  // of this rank
  StepBuffers buffers_;                   // theirs
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_EVALUATION_H_
