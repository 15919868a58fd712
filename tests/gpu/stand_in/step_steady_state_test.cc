// A training step neither waits for the GPU nor allocates once it has run, and the GPU's streams do
// not wait for the host: the parts of the trainer's step, with a ring where there are two ranks. It
// waits where its design says so, after the gradients' statistics and after the update.
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "kernels/device/cuda_device.h"
#include "kernels/elementwise.h"
#include "parallel/transport/nccl_transport.h"
#include "parallel/transport/rank_threads.h"
#include "runtime.h"
#include "runtime/model/attention_pattern.h"
#include "runtime/model/transformer.h"
#include "runtime/train/step_inputs.h"
#include "runtime/train/training_state.h"

namespace longspan {
namespace {

constexpr int64_t kShared = 40, kWhole = 24;  // tokens of the sequence that ranks share, of others
constexpr int kMicroBatches = 2;

ModelConfig SmallModel(ModelFamily family) {
  ModelConfig model;
  model.family = family;
  model.layers = 2;
  model.width = 32;
  model.heads = 4;
  model.kv_heads = family == ModelFamily::kGpt2 ? 4 : 2;
  model.ffn = 80;
  model.vocab = 264;
  model.positions = family == ModelFamily::kGpt2 ? 64 : 0;
  return model;
}

absl::StatusOr<std::vector<MicroBatchInputs>> Inputs(Transport& transport, Device& device) {
  std::vector<MicroBatchInputs> all;
  for (int i = 0; i < kMicroBatches; ++i) {
    MicroBatchInputs inputs;
    int64_t rows = kWhole;
    inputs.whole = {kWhole};
    if (transport.size() > 1) {
      std::vector<int> ranks(transport.size());
      std::iota(ranks.begin(), ranks.end(), 0);
      inputs.ring = RingLayout{ranks, transport.rank(), {kShared}};
      rows += inputs.ring->rows();
    }
    absl::StatusOr<Buffer> buffer =
        Buffer::AllocateZeroed(device.memory(), 3 * rows * SizeOf(DType::kI32), "tokens");
    if (!buffer.ok()) return buffer.status();
    inputs.buffer = *std::move(buffer);
    int64_t offset = 0;
    for (TensorView TokenBatch::*view :
         {&TokenBatch::ids, &TokenBatch::positions, &TokenBatch::targets}) {
      inputs.batch.*view = inputs.buffer.Tensor(DType::kI32, {rows}, offset);
      offset += rows * SizeOf(DType::kI32);
      for (int64_t row = 0; row < rows; ++row) {
        (inputs.batch.*view).data<int32_t>()[row] = static_cast<int32_t>(row % kWhole);
      }
    }
    all.push_back(std::move(inputs));
  }
  return all;
}

// One rank's step, as the trainer queues it.
class Rank {
 public:
  static absl::StatusOr<std::unique_ptr<Rank>> Create(const ModelConfig& config,
                                                      DType gradient_wire, Transport& transport,
                                                      Device& device) {
    auto rank = std::unique_ptr<Rank>(new Rank(transport, device));
    absl::StatusOr<std::unique_ptr<TrainingState>> state =
        TrainingState::Create(config, AdamWConfig(), transport, device, gradient_wire);
    if (!state.ok()) return state.status();
    rank->state_ = *std::move(state);
    absl::StatusOr<std::unique_ptr<Transformer>> model =
        Transformer::Create(config, kShared + kWhole, /*for_training=*/true, device);
    if (!model.ok()) return model.status();
    rank->model_ = *std::move(model);
    for (const MemoryTable::Row& row : device.memory().Rows()) {
      if (row.tag != "scratch") continue;
      EXPECT_LT(row.peak_bytes, 1 << 20) << "logits of no more rows than a micro-batch has";
    }
    absl::StatusOr<MirroredBuffer> figures =
        MirroredBuffer::Allocate(device, 4 * SizeOf(DType::kF64), "figures");
    if (!figures.ok()) return figures.status();
    rank->figures_ = *std::move(figures);
    const absl::Status status = rank->state_->SetParameters(
        [&](TensorView arena) {
          InitializeWeights(config, rank->state_->layout(), 1, arena, device.threads());
          return absl::OkStatus();
        },
        rank->stream_);
    if (!status.ok()) return status;
    return rank;
  }

  // Waits that queueing took, besides the two at its parts' ends.
  absl::StatusOr<int64_t> Step() {
    absl::StatusOr<std::vector<MicroBatchInputs>> inputs = Inputs(transport_, device_);
    if (!inputs.ok()) return inputs.status();
    int64_t before = stand_in::WaitsOfThisThread();
    absl::Status status = buffers_.Take(*inputs, device_);
    if (!status.ok()) return status;
    auto loss = std::make_shared<double>(0.0);
    const TensorView statistics = figures_.OnDevice(DType::kF64, {3});
    Zero(state_->gradient_arena(), stream_);
    Zero(statistics, stream_);
    std::vector<std::unique_ptr<PlannedAttention>> patterns;
    Event summed;
    for (size_t i = 0; i < inputs->size(); ++i) {
      patterns.push_back(std::make_unique<PlannedAttention>((*inputs)[i].ring, (*inputs)[i].whole,
                                                            AttentionOptions{.wire = DType::kBF16},
                                                            transport_, workspace_));
      status = model_->ForwardBackward((*inputs)[i].batch, *patterns.back(), state_->weights(),
                                       state_->gradients(), buffers_.Losses(i), stream_);
      if (!status.ok()) return status;
      summed = buffers_.QueueLossSum(i, loss, stream_);
    }
    state_->ReduceGradients(statistics, stream_);
    figures_.ToHost(0, figures_.bytes(), stream_);
    int64_t waits = stand_in::WaitsOfThisThread() - before;
    status = stream_.Synchronize();
    status.Update(summed.Wait());
    if (!status.ok()) return status;

    before = stand_in::WaitsOfThisThread();
    const TensorView adam_sum =
        figures_.OnDevice(DType::kF64, {1}, /*offset=*/3 * SizeOf(DType::kF64));
    Zero(adam_sum, stream_);
    state_->Update({.rate = 1e-2, .gradient_scale = 1e-2, .number = ++steps_},
                   std::vector<Event>(state_->layout().buckets().size()), stream_, adam_sum,
                   /*sums=*/true);
    figures_.ToHost(0, figures_.bytes(), stream_);
    waits += stand_in::WaitsOfThisThread() - before;
    losses_.push_back(*loss);
    status = stream_.Synchronize();
    if (!status.ok()) return status;
    return waits;
  }

  const std::vector<double>& losses() const { return losses_; }

 private:
  Rank(Transport& transport, Device& device)
      : transport_(transport), device_(device), stream_(device.CreateStream("compute")) {}

  Transport& transport_;
  Device& device_;
  std::unique_ptr<TrainingState> state_;
  std::unique_ptr<Transformer> model_;
  MirroredBuffer figures_;
  StepBuffers buffers_;
  RingWorkspace workspace_;
  int64_t steps_ = 0;
  std::vector<double> losses_;
  Stream stream_;  // first to end
};

// `most_holds`: of one rank's stream by the host in a step.
absl::Status RunSteps(const ModelConfig& config, DType gradient_wire, Transport& transport,
                      Device& device, int64_t most_holds) {
  absl::StatusOr<std::unique_ptr<Rank>> rank =
      Rank::Create(config, gradient_wire, transport, device);
  if (!rank.ok()) return rank.status();
  stand_in::Counts before, after;
  for (int step = 0; step < 4; ++step) {
    // Counts are of all ranks: none is ahead of them.
    if (absl::Status status = transport.Barrier(); !status.ok()) return status;
    before = stand_in::CountsSoFar();
    if (absl::Status status = transport.Barrier(); !status.ok()) return status;
    const absl::StatusOr<int64_t> waits = (*rank)->Step();
    if (!waits.ok()) {
      transport.Abort(std::string(waits.status().message()));
      return waits.status();
    }
    if (absl::Status status = transport.Barrier(); !status.ok()) return status;
    after = stand_in::CountsSoFar();
    // The first allocates; what came in pieces comes in one from the second on.
    if (step < 2) continue;
    EXPECT_EQ(*waits, 0) << "step " << step;
    EXPECT_EQ(after.allocations, before.allocations) << "step " << step;
    EXPECT_EQ(after.pool_allocations, before.pool_allocations) << "step " << step;
    EXPECT_LE(after.host_holds - before.host_holds, most_holds * transport.size());
    // Rings: exchanges are waited for, in both directions.
    if (transport.size() > 1) {
      EXPECT_GT(after.stream_holds, before.stream_holds);
    }
    EXPECT_GT(after.launches, before.launches);
  }
  EXPECT_LT((*rank)->losses().back(), 0.95 * (*rank)->losses().front()) << "it learns";
  return absl::OkStatus();
}

TEST(StepSteadyStateTest, InProcess) {
  for (const auto& [ranks, gradient_wire] :
       {std::pair(1, DType::kF32), std::pair(2, DType::kF32), std::pair(2, DType::kBF16)}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks, " + Name(gradient_wire));
    RankThreadOptions options;
    options.timeout = absl::Seconds(60);
    options.open_device = [](int) { return OpenCuda(0); };
    const absl::Status status = RunRanks(
        ranks,
        [wire = gradient_wire](Transport& transport, Device& device) {
          const ModelConfig model = SmallModel(ModelFamily::kLlama);
          // The host adds up the gradients of several ranks and gathers their parameters.
          const auto buckets = static_cast<int64_t>(
              ParameterLayout(ParameterSpecs(model), transport.size()).buckets().size());
          return RunSteps(model, wire, transport, device, transport.size() == 1 ? 0 : 2 * buckets);
        },
        options);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(stand_in::Faults(), "");
  }
}

TEST(StepSteadyStateTest, Nccl) {
  if (const auto version = NcclVersion(); !version.ok()) GTEST_SKIP() << version.status();
  for (const DType gradient_wire : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(Name(gradient_wire));
    RankThreadOptions options;
    options.timeout = absl::Seconds(60);
    options.open_device = [](int rank) { return OpenCuda(rank); };
    const absl::Status status = RunRanks(
        2,
        [&](Transport& transport, Device& device) -> absl::Status {
          absl::StatusOr<std::unique_ptr<Transport>> nccl = OpenNcclTransport(transport, device);
          if (!nccl.ok()) return nccl.status();
          return RunSteps(SmallModel(ModelFamily::kGpt2), gradient_wire, **nccl, device,
                          /*most_holds=*/0);
        },
        options);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(stand_in::Faults(), "");
  }
}

}  // namespace
}  // namespace longspan
