// Sampling with a cache of keys and values against computing every token's logits from the whole
// text.
#include "runtime/model/generator.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>

#include "gtest/gtest.h"
#include "parallel/transport/in_process_transport.h"
#include "runtime/model/transformer.h"

namespace longspan {
namespace {

class GeneratorTest : public testing::TestWithParam<ModelFamily> {
 protected:
  GeneratorTest() : device_(Device::OpenCpu(2)), stream_(device_->CreateStream("test")) {
    config_.family = GetParam();
    config_.layers = 3;
    config_.width = 32;
    config_.heads = 4;
    config_.kv_heads = GetParam() == ModelFamily::kLlama ? 2 : 4;
    config_.ffn = 80;
    config_.vocab = 61;
    config_.positions = GetParam() == ModelFamily::kGpt2 ? 700 : 0;
    layout_ = std::make_unique<ParameterLayout>(ParameterSpecs(config_), 1);
    arena_ =
        *Buffer::AllocateZeroed(device_->memory(), layout_->arena_elements() * 4, "parameters");
    parameters_ = arena_.Tensor(DType::kF32, {layout_->arena_elements()});
    InitializeWeights(config_, *layout_, 3, parameters_, device_->threads());
    EXPECT_TRUE(stream_.Synchronize().ok());
    // Weights of 0.02 would make all logits alike.
    float* values = parameters_.data<float>();
    for (int64_t i = 0; i < layout_->arena_elements(); ++i) values[i] *= 8;
  }

  // The likeliest token after `ids`, from a forward pass over all of them.
  int32_t Likeliest(std::vector<int32_t> ids) {
    const int64_t rows = static_cast<int64_t>(ids.size());
    std::unique_ptr<Transformer> model =
        *Transformer::Create(config_, rows, /*for_training=*/true, *device_);
    InProcessNetwork network(1);
    std::unique_ptr<Transport> transport = network.Connect(0);
    RingWorkspace workspace;
    PlannedAttention attention(std::nullopt, {rows}, {}, *transport, workspace);
    std::vector<int32_t> positions(rows);
    std::iota(positions.begin(), positions.end(), 0);
    std::vector<float> logits(rows * config_.vocab);
    const TokenBatch batch{
        TensorView::Of(ids.data(), {rows}), TensorView::Of(positions.data(), {rows}), {}};
    EXPECT_TRUE(model
                    ->Logits(batch, attention, WeightsIn(config_, *layout_, parameters_),
                             TensorView::Of(logits.data(), {rows, config_.vocab}), stream_)
                    .ok());
    EXPECT_TRUE(stream_.Synchronize().ok());
    return static_cast<int32_t>(std::max_element(logits.end() - config_.vocab, logits.end()) -
                                (logits.end() - config_.vocab));
  }

  std::unique_ptr<Device> device_;
  ModelConfig config_;
  std::unique_ptr<ParameterLayout> layout_;
  Buffer arena_;
  TensorView parameters_;
  Stream stream_;
};

TEST_P(GeneratorTest, TheCacheChangesNothing) {
  // Longer than one piece of a prompt.
  std::vector<int32_t> text(530);
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<int32_t>((i * i + 7 * i) % 61);
  SamplingOptions options;
  options.temperature = 0;
  options.max_tokens = 12;
  std::vector<int32_t> seen;
  const absl::StatusOr<std::vector<int32_t>> generated =
      Generate(config_, WeightsIn(config_, *layout_, parameters_), text, options, *device_,
               [&](int32_t token) { seen.push_back(token); });
  ASSERT_TRUE(generated.ok()) << generated.status().ToString();
  EXPECT_EQ(seen, *generated);
  ASSERT_EQ(generated->size(), 12u);
  for (int32_t token : *generated) {
    EXPECT_EQ(token, Likeliest(text));
    text.push_back(token);
  }
}

TEST_P(GeneratorTest, TheSeedDecidesAndTheEndEnds) {
  SamplingOptions options;
  options.max_tokens = 40;
  options.temperature = 1.0;
  options.top_k = 0;
  const Weights weights = WeightsIn(config_, *layout_, parameters_);
  const auto sample = [&](uint64_t seed, int32_t end) {
    options.seed = seed;
    options.end_of_sequence = end;
    return *Generate(config_, weights, {5}, options, *device_, [](int32_t) {});
  };
  const std::vector<int32_t> first = sample(1, -1);
  EXPECT_EQ(first, sample(1, -1));
  EXPECT_NE(first, sample(2, -1));
  const std::vector<int32_t> cut = sample(1, first[20]);
  EXPECT_LE(cut.size(), 20u);
  EXPECT_TRUE(std::equal(cut.begin(), cut.end(), first.begin()));
  EXPECT_FALSE(Generate(config_, weights, {}, options, *device_, [](int32_t) {}).ok())
      << "no prompt";
}

INSTANTIATE_TEST_SUITE_P(Families, GeneratorTest,
                         testing::Values(ModelFamily::kLlama, ModelFamily::kGpt2),
                         [](const auto& instance) { return std::string(Name(instance.param)); });

}  // namespace
}  // namespace longspan
