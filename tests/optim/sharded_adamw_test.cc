#include "optim/sharded_adamw.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace longspan {
namespace {

constexpr AdamWConfig kConfig = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};

// An arena of two buckets of 384 elements over three ranks: 128 of each bucket a rank. Tensors
// (with padding between them): a, 200 elements at 0, decays; b, 100 at 208, does not; c, 300 at
// 384, decays; d, 40 at 684, decays too.
constexpr int kRanks = 3;
constexpr int64_t kArena = 768, kShard = 256, kPart = 128, kBuckets = 2;
struct Tensor {
  int64_t begin, elements;
  bool decay;
};
constexpr Tensor kTensors[] = {
    {0, 200, true}, {208, 100, false}, {384, 300, true}, {684, 40, true}};

std::vector<OwnedRange> OwnedBy(int rank, int ranks = kRanks) {
  const int64_t part = kArena / kBuckets / ranks;
  std::vector<OwnedRange> owned;
  for (int64_t bucket = 0; bucket < kBuckets; ++bucket) {
    const int64_t begin = bucket * kArena / kBuckets + rank * part, end = begin + part;
    for (const Tensor& tensor : kTensors) {
      const int64_t low = std::max(begin, tensor.begin);
      const int64_t high = std::min(end, tensor.begin + tensor.elements);
      if (low >= high) continue;
      owned.push_back({.bucket = bucket,
                       .arena_begin = low,
                       .shard_begin = bucket * part + low - begin,
                       .elements = high - low,
                       .decay = tensor.decay});
    }
  }
  return owned;
}

// arXiv 1711.05101 as PyTorch has it, one element, FP64.
struct PlainAdamW {
  double p, m = 0, v = 0;
  void Update(double g, double rate, double decay, int64_t step) {
    const double n = static_cast<double>(step);
    p *= 1 - rate * decay;
    m = kConfig.beta1 * m + (1 - kConfig.beta1) * g;
    v = kConfig.beta2 * v + (1 - kConfig.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(kConfig.beta1, n));
    const double v_hat = v / (1 - std::pow(kConfig.beta2, n));
    p -= rate * m_hat / (std::sqrt(v_hat) + kConfig.eps);
  }
};

float Parameter(int64_t i) { return static_cast<float>(std::sin(0.37 * static_cast<double>(i))); }
float Gradient(int64_t i, int64_t step) {
  return static_cast<float>(
      5 * std::cos(1.3 * static_cast<double>(i) + 0.7 * static_cast<double>(step)));
}

class ShardedAdamWTest : public ::testing::Test {
 protected:
  ShardedAdamWTest() : device_(Device::OpenCpu(2)), stream_(device_->CreateStream("test")) {
    for (int64_t i = 0; i < kArena; ++i) parameters_.push_back(Parameter(i));
    gradients_.resize(kArena);
    SetGradients(1);
  }

  void SetGradients(int64_t step) {
    for (int64_t i = 0; i < kArena; ++i) gradients_[i] = Gradient(i, step);
  }

  ShardedAdamW Make(int rank, int ranks = kRanks) {
    absl::StatusOr<ShardedAdamW> optimizer =
        ShardedAdamW::Create(kConfig, OwnedBy(rank, ranks), kBuckets, kArena / ranks, *device_);
    EXPECT_TRUE(optimizer.ok()) << optimizer.status();
    return *std::move(optimizer);
  }

  TensorView parameters() { return TensorView::Of(parameters_.data(), {kArena}); }
  TensorView gradients() { return TensorView::Of(gradients_.data(), {kArena}); }

  std::unique_ptr<Device> device_;
  Stream stream_;
  std::vector<float> parameters_, gradients_;
};

TEST_F(ShardedAdamWTest, RanksTogetherMakeThePlainUpdate) {
  std::vector<ShardedAdamW> optimizers;
  for (int rank = 0; rank < kRanks; ++rank) optimizers.push_back(Make(rank));
  std::vector<PlainAdamW> expected;
  for (int64_t i = 0; i < kArena; ++i) expected.push_back({Parameter(i)});

  constexpr double kScale = 0.125;
  for (int64_t step = 1; step <= 10; ++step) {
    const double rate = 0.01 / static_cast<double>(step);
    SetGradients(step);
    for (ShardedAdamW& optimizer : optimizers) {
      optimizer.Update({.rate = rate, .gradient_scale = kScale, .number = step}, parameters(),
                       gradients(), std::vector<Event>(kBuckets), stream_);
    }
    for (const Tensor& tensor : kTensors) {
      for (int64_t i = tensor.begin; i < tensor.begin + tensor.elements; ++i) {
        expected[i].Update(kScale * Gradient(i, step), rate,
                           tensor.decay ? kConfig.weight_decay : 0, step);
      }
    }
    ASSERT_TRUE(stream_.Synchronize().ok());
  }
  // Padding is where it was; decay alone moves a parameter by about 3e-3 here.
  for (int64_t i = 0; i < kArena; ++i) EXPECT_NEAR(parameters_[i], expected[i].p, 2e-6) << i;
  for (int rank = 0; rank < kRanks; ++rank) {
    const float* m = optimizers[rank].first_moment().data<float>();
    const float* v = optimizers[rank].second_moment().data<float>();
    std::vector<bool> owned(kShard, false);
    for (const OwnedRange& range : OwnedBy(rank)) {
      for (int64_t i = 0; i < range.elements; ++i) {
        owned[range.shard_begin + i] = true;
        EXPECT_NEAR(m[range.shard_begin + i], expected[range.arena_begin + i].m, 1e-6);
        EXPECT_NEAR(v[range.shard_begin + i], expected[range.arena_begin + i].v, 1e-6);
      }
    }
    for (int64_t i = 0; i < kShard; ++i) {
      if (!owned[i]) {
        EXPECT_EQ(m[i], 0) << "padding";
      }
    }
  }
}

TEST_F(ShardedAdamWTest, OneRankMakesTheSameBitsAsThree) {
  for (int rank = 0; rank < kRanks; ++rank) {
    ShardedAdamW optimizer = Make(rank);
    optimizer.Update({.rate = 0.01}, parameters(), gradients(), std::vector<Event>(kBuckets),
                     stream_);
    ASSERT_TRUE(stream_.Synchronize().ok());
  }
  const std::vector<float> three = parameters_;
  for (int64_t i = 0; i < kArena; ++i) parameters_[i] = Parameter(i);
  ShardedAdamW optimizer = Make(0, 1);
  optimizer.Update({.rate = 0.01}, parameters(), gradients(), std::vector<Event>(kBuckets),
                   stream_);
  ASSERT_TRUE(stream_.Synchronize().ok());
  EXPECT_EQ(parameters_, three);
}

TEST_F(ShardedAdamWTest, ABucketWaitsForItsGate) {
  ShardedAdamW optimizer = Make(0);
  EventPromise gate;
  optimizer.Update({.rate = 0.01}, parameters(), gradients(), {Event(), gate.event()}, stream_);
  const Event done = stream_.Record();
  EXPECT_EQ(done.WaitFor(absl::Milliseconds(50)).code(), absl::StatusCode::kDeadlineExceeded);
  // The stream stands at the gate, and nothing but this thread can open it.
  for (int64_t i = kArena / 2; i < kArena; ++i) ASSERT_EQ(parameters_[i], Parameter(i));
  gate.Complete();
  ASSERT_TRUE(stream_.Synchronize().ok());
  EXPECT_NE(parameters_[0], Parameter(0));
  EXPECT_NE(parameters_[384], Parameter(384));
}

TEST_F(ShardedAdamWTest, AFailedGateKeepsTheBucketAndThoseAfterIt) {
  ShardedAdamW optimizer = Make(0);
  EventPromise gate;
  gate.Complete(absl::UnavailableError("rank 1 is gone"));
  optimizer.Update({.rate = 0.01}, parameters(), gradients(), {gate.event(), Event()}, stream_);
  const absl::Status status = stream_.Synchronize();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  for (int64_t i = 0; i < kArena; ++i) ASSERT_EQ(parameters_[i], Parameter(i));
}

TEST_F(ShardedAdamWTest, StateIsOneShardAndTagged) {
  const int64_t before = device_->memory().current_bytes();
  const ShardedAdamW optimizer = Make(1);
  EXPECT_EQ(device_->memory().current_bytes() - before, 2 * kShard * 4);
  bool tagged = false;
  for (const MemoryTable::Row& row : device_->memory().Rows()) {
    if (row.tag == "optimizer") tagged = row.current_bytes == 2 * kShard * 4;
  }
  EXPECT_TRUE(tagged);
  EXPECT_EQ(optimizer.first_moment().elements(), kShard);
  EXPECT_EQ(optimizer.first_moment().data<float>()[17], 0);
  EXPECT_EQ(optimizer.second_moment().data<float>()[kShard - 1], 0);
}

TEST_F(ShardedAdamWTest, ARankMayOwnNothing) {
  absl::StatusOr<ShardedAdamW> optimizer =
      ShardedAdamW::Create(kConfig, {}, kBuckets, 64, *device_);
  ASSERT_TRUE(optimizer.ok()) << optimizer.status();
  optimizer->Update({.rate = 0.01}, parameters(), gradients(), std::vector<Event>(kBuckets),
                    stream_);
  EXPECT_TRUE(stream_.Synchronize().ok());
  for (int64_t i = 0; i < kArena; ++i) ASSERT_EQ(parameters_[i], Parameter(i));
}

TEST_F(ShardedAdamWTest, ConfigurationOutOfRangeNamesTheKey) {
  const struct {
    AdamWConfig config;
    const char* key;
  } cases[] = {
      {{.beta1 = 1}, "betas[0]"},
      {{.beta1 = std::nan("")}, "betas[0]"},
      {{.beta2 = -0.1}, "betas[1]"},
      {{.eps = 0}, "eps"},
      {{.weight_decay = -1}, "weight_decay"},
  };
  for (const auto& c : cases) {
    const absl::Status status = ShardedAdamW::Create(c.config, {}, 0, 0, *device_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.key;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(c.key));
  }
}

}  // namespace
}  // namespace longspan
