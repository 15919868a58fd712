// ShardedOptimizer: whichever optimizer a run has, on one rank's part of the parameters.
#ifndef LONGSPAN_OPTIM_SHARDED_OPTIMIZER_H_
#define LONGSPAN_OPTIM_SHARDED_OPTIMIZER_H_

#include <cstdint>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "optim/sharded_adamw.h"
#include "optim/sharded_sgd.h"

namespace longspan {

using OptimizerConfig = std::variant<AdamWConfig, SgdConfig>;

// Move-only; not thread-safe.
class ShardedOptimizer {
 public:
  // As ShardedAdamW::Create.
  static absl::StatusOr<ShardedOptimizer> Create(const OptimizerConfig& config,
                                                 const std::vector<OwnedRange>& owned,
                                                 int64_t buckets, int64_t shard_elements,
                                                 Device& device);
  // As ShardedAdamW::Update. SGD adds nothing to adam_sum. written_sums: none, or u64 (1 + states):
  // of the parameters and of States(), in their order.
  void Update(const OptimizerStep& step, TensorView parameters, TensorView gradients,
              const std::vector<Event>& gates, Stream& stream, TensorView adam_sum = TensorView(),
              TensorView written_sums = TensorView());

  // What a checkpoint holds: f32 (shard_elements) each, under its name.
  struct State {
    const char* name;
    TensorView values;
  };
  std::vector<State> States() const;

 private:
  using Optimizer = std::variant<ShardedAdamW, ShardedSgd>;
  explicit ShardedOptimizer(Optimizer optimizer) : optimizer_(std::move(optimizer)) {}
  Optimizer optimizer_;
};

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_SHARDED_OPTIMIZER_H_
