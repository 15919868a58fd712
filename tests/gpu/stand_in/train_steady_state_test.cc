// The trainer's own step on a GPU, from the tokens to the update: its thread waits for the GPU
// where the design says so, twice, its streams do not wait for the host, and it allocates nothing
// once it has run. Told from runs that differ by some steps, so that what a run does once drops
// out.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../../runtime/corpus.h"
#include "../../runtime/train_fixture.h"
#include "kernels/device/cuda_device.h"
#include "parallel/parameter_layout.h"
#include "parallel/transport/nccl_transport.h"
#include "parallel/transport/rank_threads.h"
#include "runtime.h"
#include "runtime/model/model_config.h"
#include "runtime/train/trainer.h"

namespace longspan {
namespace {

constexpr int64_t kFirstSteps = 3, kMoreSteps = 2;

class TrainSteadyStateTest : public TrainFixture {
 protected:
  TrainSteadyStateTest() {
    // Alike, so that every step needs what the one before did.
    const std::string corpus = directory_.path() + "/alike.h5";
    WriteCorpus(corpus, std::vector<int64_t>(40, 120));
    config_.data.sources = {{corpus, 1.0}};
    config_.data.validation.share = 0;
    config_.model.layers = 2;
    config_.batch.tokens = 240;
    config_.checkpoint.interval.steps = 1000;
  }

  struct Use {
    stand_in::Counts counts;
    int64_t thread_waits = 0;  // of all ranks' training threads
  };

  // Of `kMoreSteps` steps of all ranks.
  Use OfMoreSteps(int ranks) {
    const Use few = Train(ranks, kFirstSteps), all = Train(ranks, kFirstSteps + kMoreSteps);
    return {Less(all.counts, few.counts), all.thread_waits - few.thread_waits};
  }

  Use Train(int ranks, int64_t steps) {
    TrainRequest request;
    request.config = config_;
    request.config.run.name = "run" + std::to_string(runs_++);
    request.config.run.steps = steps;
    RankThreadOptions options;
    options.timeout = absl::Seconds(100);
    options.open_device = open_device_;
    std::vector<int64_t> waits(ranks, 0);
    const stand_in::Counts before = stand_in::CountsSoFar();
    const absl::Status status = RunRanks(
        ranks,
        [&](Transport& transport, Device& device) {
          const std::unique_ptr<Transport> wrapped = wrap_ ? wrap_(transport, device) : nullptr;
          const int64_t waits_before = stand_in::WaitsOfThisThread();
          absl::Status mine = longspan::Train(request, wrap_ ? *wrapped : transport, device);
          waits[transport.rank()] = stand_in::WaitsOfThisThread() - waits_before;
          return mine;
        },
        options);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(stand_in::Faults(), "");
    Use use{Less(stand_in::CountsSoFar(), before), 0};
    for (const int64_t each : waits) use.thread_waits += each;
    return use;
  }

  static stand_in::Counts Less(const stand_in::Counts& a, const stand_in::Counts& b) {
    return {.allocations = a.allocations - b.allocations,
            .pool_allocations = a.pool_allocations - b.pool_allocations,
            .waits = a.waits - b.waits,
            .host_holds = a.host_holds - b.host_holds,
            .stream_holds = a.stream_holds - b.stream_holds,
            .launches = a.launches - b.launches};
  }

  // `most_holds`: of each rank's streams by the host in a step.
  void ExpectSteady(int ranks, int64_t most_holds) {
    // Set-ups measure the device with products of a size that depends on how quick they are: one
    // pair of runs may differ by that. What steps do differs in every pair.
    constexpr int kTries = 4;
    Use use = OfMoreSteps(ranks);
    for (int i = 1; i < kTries && (use.thread_waits != 2 * kMoreSteps * ranks ||
                                   use.counts.allocations + use.counts.pool_allocations != 0);
         ++i) {
      use = OfMoreSteps(ranks);
    }
    EXPECT_EQ(use.thread_waits, 2 * kMoreSteps * ranks);
    EXPECT_EQ(use.counts.allocations, 0);
    EXPECT_EQ(use.counts.pool_allocations, 0);
    EXPECT_LE(use.counts.host_holds, most_holds * kMoreSteps * ranks);
    if (ranks > 1) {
      EXPECT_GT(use.counts.stream_holds, 0) << "exchanges are waited for";
    }
    EXPECT_GT(use.counts.launches, 0);
  }

  int runs_ = 0;
};

TEST_F(TrainSteadyStateTest, OneRank) {
  open_device_ = [](int) { return OpenCuda(0); };
  ExpectSteady(1, /*most_holds=*/0);
}

TEST_F(TrainSteadyStateTest, OneRankThatSavesEveryStep) {
  open_device_ = [](int) { return OpenCuda(0); };
  config_.checkpoint.interval.steps = 1;
  config_.checkpoint.memory.interval.steps = 1;
  config_.checkpoint.memory.directory = directory_.path();
  ExpectSteady(1, /*most_holds=*/0);
}

TEST_F(TrainSteadyStateTest, InProcess) {
  open_device_ = [](int) { return OpenCuda(0); };
  config_.batch.micro_batch_tokens = 100;  // less than a document: rings
  ModelConfig model;
  model.layers = 2;
  model.width = 32;
  model.heads = 4;
  model.kv_heads = 2;
  model.ffn = 80;
  model.vocab = 264;
  const auto buckets =
      static_cast<int64_t>(ParameterLayout(ParameterSpecs(model), 2).buckets().size());
  // The host adds up the gradients of several ranks and gathers their parameters.
  ExpectSteady(2, 2 * buckets);
}

TEST_F(TrainSteadyStateTest, Nccl) {
  if (const auto version = NcclVersion(); !version.ok()) GTEST_SKIP() << version.status();
  open_device_ = [](int rank) { return OpenCuda(rank); };
  wrap_ = [](Transport& transport, Device& device) {
    return OpenNcclTransport(transport, device).value();
  };
  config_.batch.micro_batch_tokens = 100;
  ExpectSteady(2, /*most_holds=*/0);
}

}  // namespace
}  // namespace longspan
