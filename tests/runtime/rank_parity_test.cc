// The same batch on 1 to 4 ranks, with groups of one, two and three ranks and a rank without work:
// the same gradients.
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#include "corpus.h"
#include "gtest/gtest.h"
#include "kernels/elementwise.h"
#include "parallel/planner.h"
#include "parallel/transport/rank_threads.h"
#include "runtime/train/run_setup.h"
#include "runtime/train/step_inputs.h"
#include "runtime/train/training_state.h"
#include "temporary_directory.h"

namespace longspan {
namespace {

struct StepResult {
  std::vector<float> gradients;  // whole tensors, one after the other, by layout order
  std::vector<int64_t> begins;   // of each tensor, and the end
  double loss = 0;
  int64_t bytes_read = 0;  // of all ranks
  int64_t optimizer_bytes = 0;
  int64_t ring_peak_bytes = 0;  // workspace of one rank's travelling blocks
  size_t widest_group = 0, idle_ranks = 0;
};

ModelConfig SmallModel(ModelFamily family) {
  ModelConfig model;
  model.family = family;
  model.layers = 2;
  model.width = 32;
  model.heads = 4;
  model.kv_heads = family == ModelFamily::kLlama ? 2 : 4;
  model.ffn = 80;
  model.vocab = 257;
  model.positions = family == ModelFamily::kGpt2 ? 512 : 0;
  return model;
}

StepResult RunStep(const Dataset& dataset, const ModelConfig& config, int ranks, int64_t capacity) {
  StepResult result;
  DataCursor cursor = dataset.Begin();
  const std::vector<SequenceRef> sequences = dataset.NextBatch(cursor, dataset.training_tokens());
  PlanRequest request{{}, ranks, capacity, FixedCostModel(config)};
  for (const SequenceRef& sequence : sequences) request.lengths.push_back(sequence.length);
  const absl::StatusOr<StepPlan> plan = (*CreatePlanner("bytescale"))->Plan(request);
  EXPECT_TRUE(plan.ok()) << plan.status().ToString();
  EXPECT_TRUE(Validate(*plan).ok());
  for (const SequenceGroup& group : plan->groups)
    result.widest_group = std::max(result.widest_group, group.ranks.size());
  for (const auto& list : plan->micro_batches) result.idle_ranks += list.empty() ? 1 : 0;
  const int64_t bytes_before = dataset.bytes_read();

  std::vector<double> losses(ranks);
  std::vector<int64_t> optimizer_bytes(ranks), ring_bytes(ranks);
  RankThreadOptions options;
  options.timeout = absl::Seconds(60);
  const absl::Status status = RunRanks(
      ranks,
      [&](Transport& transport, Device& device) -> absl::Status {
        absl::StatusOr<std::unique_ptr<TrainingState>> state =
            TrainingState::Create(config, AdamWConfig(), transport, device);
        if (!state.ok()) return state.status();
        absl::StatusOr<std::unique_ptr<Transformer>> model =
            Transformer::Create(config, capacity, true, device);
        if (!model.ok()) return model.status();
        absl::StatusOr<std::vector<MicroBatchInputs>> inputs =
            ReadStepInputs(*plan, transport.rank(), sequences, dataset, device.memory());
        if (!inputs.ok()) return inputs.status();
        std::vector<float> row_losses(capacity);
        std::vector<double> statistics(3);
        RingWorkspace workspace;
        std::vector<std::unique_ptr<PlannedAttention>> patterns;
        Stream stream = device.CreateStream("test");
        const ParameterLayout& layout = (*state)->layout();
        const absl::Status filled = (*state)->SetParameters(
            [&](TensorView arena) {
              InitializeWeights(config, layout, 5, arena, device.threads());
              return absl::OkStatus();
            },
            stream);
        if (!filled.ok()) return filled;
        Zero((*state)->gradient_arena(), stream);
        for (const MicroBatchInputs& micro_batch : *inputs) {
          patterns.push_back(std::make_unique<PlannedAttention>(
              micro_batch.ring, micro_batch.whole, AttentionOptions{}, transport, workspace));
          const int64_t rows = micro_batch.batch.rows();
          absl::Status queued = (*model)->ForwardBackward(
              micro_batch.batch, *patterns.back(), (*state)->weights(), (*state)->gradients(),
              TensorView::Of(row_losses.data(), {rows}), stream);
          if (!queued.ok()) return queued;
          stream.Launch("loss", [&, rows] {
            losses[transport.rank()] +=
                std::accumulate(row_losses.begin(), row_losses.begin() + rows, 0.0);
          });
        }
        (*state)->ReduceGradients(TensorView::Of(statistics.data(), {3}), stream);
        for (const ParameterLayout::Bucket& bucket : layout.buckets()) {
          const TensorView whole =
              (*state)->gradient_arena().Slice(0, bucket.begin, bucket.begin + bucket.elements);
          const int64_t part = bucket.elements / ranks;
          transport.AllGather(
              whole.Slice(0, transport.rank() * part, (transport.rank() + 1) * part), whole,
              stream);
        }
        if (absl::Status done = stream.Synchronize(); !done.ok()) return done;
        for (const MemoryTable::Row& row : device.memory().Rows()) {
          if (row.tag == "optimizer") optimizer_bytes[transport.rank()] = row.peak_bytes;
          if (row.tag == "ring") ring_bytes[transport.rank()] = row.peak_bytes;
        }
        if (transport.rank() == 0) {
          const float* arena = (*state)->gradient_arena().data<float>();
          for (size_t i = 0; i < layout.specs().size(); ++i) {
            result.begins.push_back(static_cast<int64_t>(result.gradients.size()));
            const float* begin = arena + layout.offset(static_cast<int64_t>(i));
            result.gradients.insert(result.gradients.end(), begin,
                                    begin + layout.specs()[i].elements());
          }
          result.begins.push_back(static_cast<int64_t>(result.gradients.size()));
        }
        return absl::OkStatus();
      },
      options);
  EXPECT_TRUE(status.ok()) << status.ToString();
  result.loss = std::accumulate(losses.begin(), losses.end(), 0.0);
  result.optimizer_bytes =
      std::accumulate(optimizer_bytes.begin(), optimizer_bytes.end(), int64_t{0});
  result.ring_peak_bytes = *std::max_element(ring_bytes.begin(), ring_bytes.end());
  result.bytes_read = dataset.bytes_read() - bytes_before;
  return result;
}

double NormOf(const float* begin, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(begin[i]) * begin[i];
  return std::sqrt(sum);
}

void ExpectSameGradients(const StepResult& a, const StepResult& b, const std::string& what) {
  EXPECT_NEAR(b.loss, a.loss, 1e-6 * a.loss) << what;
  ASSERT_EQ(a.begins, b.begins);
  const double global = NormOf(a.gradients.data(), static_cast<int64_t>(a.gradients.size()));
  EXPECT_GT(global, 0);
  for (size_t i = 0; i + 1 < a.begins.size(); ++i) {
    const int64_t begin = a.begins[i], count = a.begins[i + 1] - begin;
    std::vector<float> difference(count);
    for (int64_t j = 0; j < count; ++j)
      difference[j] = a.gradients[begin + j] - b.gradients[begin + j];
    const double norm = NormOf(a.gradients.data() + begin, count);
    EXPECT_LT(NormOf(difference.data(), count), 1e-5 * std::max(norm, 1e-3 * global))
        << what << ", tensor " << i;
  }
}

class RankParityTest : public testing::TestWithParam<ModelFamily> {};

TEST_P(RankParityTest, GradientsDoNotDependOnTheRanks) {
  TemporaryDirectory directory;
  const std::string path = directory.path() + "/corpus.h5";
  WriteCorpus(path, {299, 3, 150, 1, 77, 41, 260, 12});
  DatasetOptions options;
  options.sources = {{path, 1.0}};
  const absl::StatusOr<std::unique_ptr<Dataset>> dataset = Dataset::Open(options);
  ASSERT_TRUE(dataset.ok()) << dataset.status().ToString();
  const ModelConfig config = SmallModel(GetParam());

  const StepResult alone = RunStep(**dataset, config, 1, 512);
  EXPECT_EQ(alone.widest_group, 0u);
  // Targets and inputs of every sequence, two bytes each, one token shared.
  EXPECT_EQ(alone.bytes_read, 2 * (299 + 3 + 150 + 1 + 77 + 41 + 260 + 12 + 8));

  struct Case {
    int ranks;
    int64_t capacity;
    size_t widest;
  };
  for (const Case& c :
       {Case{2, 400, 0}, Case{2, 150, 2}, Case{3, 128, 3}, Case{4, 150, 2}, Case{4, 100, 3}}) {
    const StepResult result = RunStep(**dataset, config, c.ranks, c.capacity);
    const std::string what = std::to_string(c.ranks) + " ranks of " + std::to_string(c.capacity);
    EXPECT_EQ(result.widest_group, c.widest) << what;
    ExpectSameGradients(alone, result, what);
    // ZeRO-1: all ranks together hold the moments once, but for padding.
    EXPECT_LE(result.optimizer_bytes, alone.optimizer_bytes + 2 * 4 * 64 * c.ranks * 8) << what;
    // One token more for each further range of a sequence: zigzag ranges are read one by one.
    EXPECT_GE(result.bytes_read, alone.bytes_read) << what;
    EXPECT_LE(result.bytes_read, alone.bytes_read + 2 * 2 * c.ranks * 8) << what;
    // Three blocks of one member in the forward pass, five in the backward, row statistics: never
    // the gathered sequence, never some for each layer.
    EXPECT_LE(result.ring_peak_bytes, 9 * c.capacity * 2 * config.kv_width() * 4) << what;
  }
}

TEST_P(RankParityTest, MoreRanksThanSequences) {
  TemporaryDirectory directory;
  const std::string path = directory.path() + "/corpus.h5";
  WriteCorpus(path, {30, 200});
  DatasetOptions options;
  options.sources = {{path, 1.0}};
  const absl::StatusOr<std::unique_ptr<Dataset>> dataset = Dataset::Open(options);
  ASSERT_TRUE(dataset.ok()) << dataset.status().ToString();
  const ModelConfig config = SmallModel(GetParam());
  const StepResult alone = RunStep(**dataset, config, 1, 256),
                   idle = RunStep(**dataset, config, 4, 256);
  EXPECT_GE(idle.idle_ranks, 2u);
  ExpectSameGradients(alone, idle, "four ranks for two sequences");
}

INSTANTIATE_TEST_SUITE_P(Families, RankParityTest,
                         testing::Values(ModelFamily::kLlama, ModelFamily::kGpt2),
                         [](const auto& instance) { return std::string(Name(instance.param)); });

}  // namespace
}  // namespace longspan
