#include "optim/sharded_optimizer.h"

namespace longspan {

absl::StatusOr<ShardedOptimizer> ShardedOptimizer::Create(const OptimizerConfig& config,
                                                          const std::vector<OwnedRange>& owned,
                                                          int64_t buckets, int64_t shard_elements,
                                                          Device& device) {
  if (const auto* sgd = std::get_if<SgdConfig>(&config)) {
    absl::StatusOr<ShardedSgd> made =
        ShardedSgd::Create(*sgd, owned, buckets, shard_elements, device);
    if (!made.ok()) return made.status();
    return ShardedOptimizer(*std::move(made));
  }
  absl::StatusOr<ShardedAdamW> made =
      ShardedAdamW::Create(std::get<AdamWConfig>(config), owned, buckets, shard_elements, device);
  if (!made.ok()) return made.status();
  return ShardedOptimizer(*std::move(made));
}

void ShardedOptimizer::Update(const OptimizerStep& step, TensorView parameters,
                              TensorView gradients, const std::vector<Event>& gates, Stream& stream,
                              TensorView adam_sum, TensorView written_sums) {
  if (auto* sgd = std::get_if<ShardedSgd>(&optimizer_)) {
    sgd->Update(step, parameters, gradients, gates, stream, written_sums);
  } else {
    std::get<ShardedAdamW>(optimizer_)
        .Update(step, parameters, gradients, gates, stream, adam_sum, written_sums);
  }
}

std::vector<ShardedOptimizer::State> ShardedOptimizer::States() const {
  if (const auto* sgd = std::get_if<ShardedSgd>(&optimizer_)) {
    return {{"momentum", sgd->momentum()}};
  }
  const ShardedAdamW& adamw = std::get<ShardedAdamW>(optimizer_);
  return {{"first_moment", adamw.first_moment()}, {"second_moment", adamw.second_moment()}};
}

}  // namespace longspan
