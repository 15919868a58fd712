// What an update tells of what it wrote is what its registered memory holds.
#include "runtime/train/training_state.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <vector>

#include "kernels/device/content_sum.h"
#include "parallel/transport/rank_threads.h"

namespace longspan {
namespace {

ModelConfig SmallModel() {
  ModelConfig model;
  model.layers = 2;
  model.width = 32;
  model.heads = 4;
  model.kv_heads = 2;
  model.ffn = 80;
  model.vocab = 257;
  return model;
}

std::vector<uint64_t> SumsOf(const std::vector<StateRegion>& regions) {
  std::vector<uint64_t> sums;
  for (const StateRegion& region : regions) {
    if (static_cast<int>(sums.size()) <= region.content_sum) sums.resize(region.content_sum + 1);
    sums[region.content_sum] +=
        ContentSum(region.data, region.flat_end - region.flat_begin, region.content_position);
  }
  return sums;
}

class TrainingStateTest : public testing::TestWithParam<int> {};

TEST_P(TrainingStateTest, TellsTheContentSumsOfItsRegions) {
  for (const OptimizerConfig& optimizer :
       {OptimizerConfig(AdamWConfig{.weight_decay = 0.1}), OptimizerConfig(SgdConfig())}) {
    const size_t vectors = std::holds_alternative<SgdConfig>(optimizer) ? 2 : 3;
    const absl::Status status = RunRanks(GetParam(), [&](Transport& transport, Device& device) {
      absl::StatusOr<std::unique_ptr<TrainingState>> state =
          TrainingState::Create(SmallModel(), optimizer, transport, device);
      if (!state.ok()) return state.status();
      Stream stream = device.CreateStream("test");
      std::mt19937 random(static_cast<unsigned>(transport.rank()));
      std::normal_distribution<float> normal;
      for (const TensorView& arena : {(*state)->compute_arena(), (*state)->gradient_arena()}) {
        for (int64_t i = 0; i < arena.elements(); ++i) arena.data<float>()[i] = normal(random);
      }
      const std::vector<Event> gates((*state)->layout().buckets().size());
      EXPECT_TRUE((*state)->ContentSums().empty()) << "nothing is written yet";
      for (int64_t step = 1; step <= 3; ++step) {
        const bool wanted = step != 2;
        (*state)->Update({.rate = 0.01, .number = step}, gates, stream, TensorView(), wanted);
        if (absl::Status done = stream.Synchronize(); !done.ok()) return done;
        const std::vector<StateRegion> regions = (*state)->Regions();
        EXPECT_EQ((*state)->ContentSums(), wanted ? SumsOf(regions) : std::vector<uint64_t>());
        if (!wanted) continue;
        EXPECT_EQ((*state)->ContentSums().size(), vectors);
        // Whatever else is in that memory has another sum.
        static_cast<float*>(regions.back().data)[0] += 1;
        EXPECT_NE((*state)->ContentSums(), SumsOf(regions));
      }
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, TrainingStateTest, testing::Values(1, 2, 3));

}  // namespace
}  // namespace longspan
