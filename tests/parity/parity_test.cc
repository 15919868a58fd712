// Logits, gradients and ten AdamW steps of two small models against what PyTorch computed in FP64
// (make_vectors.py).
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/elementwise.h"
#include "optim/gradient_norms.h"
#include "parallel/transport/rank_threads.h"
#include "recorded_file.h"
#include "runtime/model/transformer.h"
#include "runtime/train/training_state.h"

namespace longspan {
namespace {

ModelConfig ConfigOf(const RecordedFile& file) {
  ModelConfig c;
  c.family = *ModelFamilyFromName(file.Text("family"));
  c.layers = static_cast<int>(file.Number("layers"));
  c.width = static_cast<int64_t>(file.Number("width"));
  c.heads = static_cast<int>(file.Number("heads"));
  c.kv_heads = static_cast<int>(file.Number("kv_heads"));
  c.ffn = static_cast<int64_t>(file.Number("ffn"));
  c.vocab = static_cast<int64_t>(file.Number("vocab"));
  c.norm_eps = static_cast<float>(file.Number("norm_eps"));
  if (c.family == ModelFamily::kGpt2) {
    c.positions = static_cast<int64_t>(file.Number("positions"));
  } else {
    c.rope_base = file.Number("rope_base");
  }
  return c;
}

double Norm(const std::vector<double>& values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

// Norm of (ours * scale - theirs).
double Difference(const float* ours, double scale, const std::vector<double>& theirs) {
  double sum = 0;
  for (size_t i = 0; i < theirs.size(); ++i) {
    const double difference = static_cast<double>(ours[i]) * scale - theirs[i];
    sum += difference * difference;
  }
  return std::sqrt(sum);
}

class ParityTest : public testing::TestWithParam<const char*> {
 protected:
  static std::string Path() {
    const char* fresh = std::getenv("LONGSPAN_PARITY_VECTORS");
    return std::string(fresh != nullptr ? fresh : LONGSPAN_TEST_DATA) + "/" + GetParam() + ".h5";
  }
};

// Tokens of one step, all documents in one pack.
struct Pack {
  std::vector<int32_t> ids, positions, targets;
  TokenBatch batch() {
    const int64_t rows = static_cast<int64_t>(ids.size());
    return {TensorView::Of(ids.data(), {rows}), TensorView::Of(positions.data(), {rows}),
            TensorView::Of(targets.data(), {rows})};
  }
};

Pack PackOf(const std::vector<double>& tokens, int64_t step, const std::vector<int64_t>& lengths) {
  const int64_t stored =
      std::accumulate(lengths.begin(), lengths.end(), static_cast<int64_t>(lengths.size()));
  Pack pack;
  int64_t at = step * stored;
  for (int64_t length : lengths) {
    for (int64_t i = 0; i < length; ++i) {
      pack.ids.push_back(static_cast<int32_t>(tokens[at + i]));
      pack.targets.push_back(static_cast<int32_t>(tokens[at + i + 1]));
      pack.positions.push_back(static_cast<int32_t>(i));
    }
    at += length + 1;
  }
  return pack;
}

TEST_P(ParityTest, LogitsGradientsAndTenAdamWSteps) {
  const RecordedFile file(Path());
  const ModelConfig config = ConfigOf(file);
  std::vector<int64_t> lengths;
  for (double length : file.Values("lengths")) lengths.push_back(static_cast<int64_t>(length));
  const int64_t rows = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  const std::vector<double> tokens = file.Values("tokens"), losses = file.Values("losses");
  const std::vector<double> norms = file.Values("gradient_norms");
  const AdamWConfig adamw{file.Number("beta1"), file.Number("beta2"), file.Number("eps"),
                          file.Number("weight_decay")};

  const absl::Status status =
      RunRanks(1, [&](Transport& transport, Device& device) -> absl::Status {
        Stream stream = device.CreateStream("parity");
        std::unique_ptr<TrainingState> state =
            *TrainingState::Create(config, adamw, transport, device);
        std::unique_ptr<Transformer> model =
            *Transformer::Create(config, rows, /*for_training=*/true, device);
        const ParameterLayout& layout = state->layout();
        const auto values = [&](TensorView arena, size_t tensor) {
          return arena.data<float>() + layout.offset(static_cast<int64_t>(tensor));
        };
        for (size_t i = 0; i < layout.specs().size(); ++i) {
          const std::vector<double> initial = file.Values("initial/" + layout.specs()[i].name);
          EXPECT_EQ(static_cast<int64_t>(initial.size()), layout.specs()[i].elements());
          std::copy(initial.begin(), initial.end(), values(state->compute_arena(), i));
        }

        std::vector<float> row_losses(rows);
        std::vector<double> statistics(kStepSums);
        for (size_t step = 0; step < losses.size(); ++step) {
          Pack pack = PackOf(tokens, static_cast<int64_t>(step), lengths);
          RingWorkspace workspace;
          PlannedAttention attention(std::nullopt, lengths, {}, transport, workspace);
          if (step == 0) {
            std::vector<float> logits(rows * config.vocab);
            EXPECT_TRUE(model
                            ->Logits(pack.batch(), attention, state->weights(),
                                     TensorView::Of(logits.data(), {rows, config.vocab}), stream)
                            .ok());
            EXPECT_TRUE(stream.Synchronize().ok());
            const std::vector<double> theirs = file.Values("logits");
            EXPECT_LT(Difference(logits.data(), 1, theirs), 1e-5 * Norm(theirs));
          }
          Zero(state->gradient_arena(), stream);
          EXPECT_TRUE(model
                          ->ForwardBackward(pack.batch(), attention, state->weights(),
                                            state->gradients(),
                                            TensorView::Of(row_losses.data(), {rows}), stream)
                          .ok());
          std::fill(statistics.begin(), statistics.end(), 0.0);
          state->ReduceGradients(TensorView::Of(statistics.data(), {kGradientStatistics}), stream);
          EXPECT_TRUE(stream.Synchronize().ok());
          const double loss = std::accumulate(row_losses.begin(), row_losses.end(), 0.0) /
                              static_cast<double>(rows);
          EXPECT_NEAR(loss, losses[step], 1e-5 * losses[step]) << "step " << step;
          StepSumVector sums{};
          std::copy(statistics.begin(), statistics.end(), sums.begin());
          const double norm = NormsOf(sums, rows).l2;
          EXPECT_NEAR(norm, norms[step], 1e-4 * norms[step]) << "step " << step;
          if (step == 0) {
            for (size_t i = 0; i < layout.specs().size(); ++i) {
              const std::vector<double> theirs = file.Values("gradients/" + layout.specs()[i].name);
              const double difference = Difference(values(state->gradient_arena(), i),
                                                   1.0 / static_cast<double>(rows), theirs);
              EXPECT_LT(difference, 1e-4 * std::max(Norm(theirs), 1e-3 * norms[0]))
                  << layout.specs()[i].name;
            }
          }
          const double scale = ClipFactor(norm, file.Number("clip")) / static_cast<double>(rows);
          state->Update({file.Number("lr"), scale, static_cast<int64_t>(step) + 1},
                        std::vector<Event>(layout.buckets().size()), stream);
          EXPECT_TRUE(stream.Synchronize().ok());
        }

        double global = 0;
        for (const ParameterSpec& spec : layout.specs())
          global += std::pow(Norm(file.Values("final/" + spec.name)), 2);
        for (size_t i = 0; i < layout.specs().size(); ++i) {
          const std::string& name = layout.specs()[i].name;
          std::vector<double> theirs = file.Values("final/" + name);
          float* ours = values(state->compute_arena(), i);
          if (name.ends_with("c_attn.bias")) {
            // The middle third is the keys' bias: its true gradient is zero, and Adam scales
            // rounding up to whole steps.
            const size_t third = theirs.size() / 3;
            std::fill(ours + third, ours + 2 * third, 0.0f);
            std::fill(theirs.begin() + third, theirs.begin() + 2 * third, 0.0);
          }
          EXPECT_LT(Difference(ours, 1, theirs),
                    1e-4 * std::max(Norm(theirs), 1e-3 * std::sqrt(global)))
              << name;
        }
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

INSTANTIATE_TEST_SUITE_P(Models, ParityTest, testing::Values("llama", "gpt2"),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace longspan
