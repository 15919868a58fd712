#include "runtime/cost/cost_profile.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/elementwise.h"
#include "parallel/plan_outline.h"
#include "runtime/cost/cost_fit.h"
#include "runtime/model/transformer.h"
#include "runtime/train/agreement.h"

namespace longspan {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMostWidths = 4, kLeastRounds = 3, kMostRounds = 50;
constexpr int64_t kLeastTokens = 64;
// Of the most tokens a rank: geometric, and denser where pairs dominate.
constexpr double kShares[] = {1.0 / 64, 1.0 / 32, 1.0 / 16, 1.0 / 8, 1.0 / 4, 1.0 / 2, 3.0 / 4, 1};
constexpr double kSpeedTolerance = 0.02;

struct Case {
  int64_t length = 0;
  int members = 1;
};

double MedianSeconds(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

std::vector<Case> CasesOf(int ranks, int64_t most_tokens) {
  std::vector<int> widths;
  for (int width = 1; width < ranks && widths.size() + 1 < kMostWidths; width *= 2) {
    widths.push_back(width);
  }
  widths.push_back(ranks);
  std::vector<Case> cases;
  for (const int width : widths) {
    for (const double share : kShares) {
      const auto rows = static_cast<int64_t>(std::ceil(share * static_cast<double>(most_tokens)));
      cases.push_back({rows * width, width});
    }
  }
  return cases;
}

class Profiler {
 public:
  Profiler(const ProfileRequest& request, Transport& transport, Device& device)
      : request_(request),
        transport_(transport),
        device_(device),
        stream_(device.CreateStream("compute")) {}

  absl::StatusOr<CostProfile> Run();

 private:
  absl::Status Allocate();
  // Seconds of this rank; 0 where it has no part in the case.
  absl::StatusOr<double> Measure(const Case& one);
  // All ranks' values of each rank.
  absl::StatusOr<std::vector<std::vector<double>>> Gather(const std::vector<double>& mine);
  // Rank 0's value.
  absl::StatusOr<double> Leading(double value);
  absl::StatusOr<int64_t> AffordableTokens();

  const ProfileRequest& request_;
  Transport& transport_;
  Device& device_;
  std::unique_ptr<ParameterLayout> layout_;
  Buffer parameter_buffer_, gradient_buffer_, losses_buffer_, tokens_buffer_;
  Weights weights_, gradients_;
  std::unique_ptr<Transformer> model_;
  RingWorkspace workspace_;
  std::unique_ptr<PlannedAttention> attention_;
  Stream stream_;  // last: its queued work may use all of the above
};

absl::Status Profiler::Allocate() {
  const int64_t rows = request_.micro_batch_tokens;
  ModelConfig model = request_.model;
  if (model.family == ModelFamily::kGpt2) {
    model.positions = std::max(model.positions, rows * transport_.size() + 1);
  }
  layout_ = std::make_unique<ParameterLayout>(ParameterSpecs(model), 1);
  const auto allocate = [&](Buffer& buffer, int64_t elements, const char* tag,
                            Placement placement) -> absl::Status {
    absl::StatusOr<Buffer> made =
        Buffer::Allocate(device_.memory(), elements * SizeOf(DType::kF32), tag, placement);
    if (made.ok()) buffer = *std::move(made);
    return made.status();
  };
  const int64_t elements = layout_->arena_elements();
  absl::Status status = allocate(parameter_buffer_, elements, "parameters", Placement::kHost);
  if (status.ok()) status = allocate(gradient_buffer_, elements, "gradients", Placement::kDevice);
  if (status.ok()) status = allocate(losses_buffer_, rows, "losses", Placement::kDevice);
  if (status.ok()) status = allocate(tokens_buffer_, 3 * rows, "tokens", Placement::kPinnedHost);
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Transformer>> transformer =
      Transformer::Create(model, rows, /*for_training=*/true, device_);
  if (!transformer.ok()) return transformer.status();
  model_ = *std::move(transformer);
  InitializeWeights(model, *layout_, /*seed=*/1, parameter_buffer_.Tensor(DType::kF32, {elements}),
                    device_.threads());
  const DType compute = ComputeTypeOf(device_);
  if (device_.kind() != DeviceKind::kCpu) {
    absl::StatusOr<Buffer> uploaded =
        UploadWeights(parameter_buffer_.Tensor(DType::kF32, {elements}), stream_);
    if (!uploaded.ok()) return uploaded.status();
    parameter_buffer_ = *std::move(uploaded);
  }
  const TensorView gradients = gradient_buffer_.Tensor(DType::kF32, {elements});
  weights_ = WeightsIn(model, *layout_, parameter_buffer_.Tensor(compute, {elements}));
  gradients_ = WeightsIn(model, *layout_, gradients);
  Zero(gradients, stream_);
  return stream_.Synchronize();
}

absl::StatusOr<double> Profiler::Measure(const Case& one) {
  const int first = transport_.rank() / one.members * one.members;
  const bool takes_part = first + one.members <= transport_.size();
  std::optional<RingLayout> ring;
  std::vector<int64_t> whole;
  TokenBatch batch;
  if (takes_part) {
    int member = 0;
    if (one.members > 1) {
      const std::vector<int> ranks = IntervalRing(first, one.members);
      member = static_cast<int>(std::find(ranks.begin(), ranks.end(), transport_.rank()) -
                                ranks.begin());
      ring = RingLayout{ranks, member, {one.length}};
    } else {
      whole.push_back(one.length);
    }
    const int64_t rows = ring.has_value() ? ring->rows() : one.length;
    const auto tensor = [&](int index) {
      return tokens_buffer_.Tensor(DType::kI32, {rows}, index * rows * SizeOf(DType::kI32));
    };
    batch = {tensor(0), tensor(1), tensor(2)};
    int64_t row = 0;
    for (const TokenRange& range : ZigzagSliceRanges(one.length, one.members, member)) {
      for (int64_t i = range.begin; i < range.end; ++i, ++row) {
        batch.ids.data<int32_t>()[row] = static_cast<int32_t>(i * 7919 % request_.model.vocab);
        batch.positions.data<int32_t>()[row] = static_cast<int32_t>(i);
        batch.targets.data<int32_t>()[row] =
            static_cast<int32_t>((i + 1) * 7919 % request_.model.vocab);
      }
    }
  }
  if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
  if (!takes_part) return 0.0;
  attention_ =
      std::make_unique<PlannedAttention>(ring, whole, request_.attention, transport_, workspace_);
  const Clock::time_point begin = Clock::now();
  absl::Status status =
      model_->ForwardBackward(batch, *attention_, weights_, gradients_,
                              losses_buffer_.Tensor(DType::kF32, {batch.rows()}), stream_);
  if (status.ok()) status = stream_.Synchronize();
  if (!status.ok()) return status;
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

absl::StatusOr<std::vector<std::vector<double>>> Profiler::Gather(const std::vector<double>& mine) {
  absl::StatusOr<std::vector<std::string>> all = transport_.AllGatherBytes(
      std::string(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(double)));
  if (!all.ok()) return all.status();
  std::vector<std::vector<double>> values;
  for (const std::string& bytes : *all) {
    values.emplace_back(bytes.size() / sizeof(double));
    std::memcpy(values.back().data(), bytes.data(), bytes.size());
  }
  return values;
}

absl::StatusOr<double> Profiler::Leading(double value) {
  absl::StatusOr<std::string> bytes = transport_.BroadcastBytes(
      std::string(reinterpret_cast<const char*>(&value), sizeof(value)), /*root=*/0);
  if (!bytes.ok()) return bytes.status();
  std::memcpy(&value, bytes->data(), sizeof(value));
  return value;
}

// The most tokens a rank for which a few rounds fit the time, from a small trial.
absl::StatusOr<int64_t> Profiler::AffordableTokens() {
  int64_t tokens = request_.micro_batch_tokens;
  const int64_t trial = std::max<int64_t>(kLeastTokens, tokens / 8) / 2 * 2;
  double seconds = 0;
  for (int i = 0; i < 2; ++i) {  // the first one warms up
    absl::StatusOr<double> measured = Measure({trial, 1});
    if (!measured.ok()) return measured.status();
    seconds = *measured;
  }
  absl::StatusOr<double> agreed = Leading(seconds);
  if (!agreed.ok()) return agreed.status();
  const auto cases = CasesOf(transport_.size(), tokens);
  double rows = 0;
  for (const Case& one : cases) rows += static_cast<double>(one.length / one.members);
  double expected = *agreed * rows / static_cast<double>(trial) * (kLeastRounds + 1);
  while (expected > request_.seconds && tokens / 2 >= 4 * kLeastTokens) {
    tokens = tokens / 4 * 2;
    expected /= 2;
  }
  return tokens;
}

absl::StatusOr<CostProfile> Profiler::Run() {
  absl::Status ready;
  if (request_.micro_batch_tokens < kLeastTokens) {
    ready = absl::InvalidArgumentError(
        absl::StrCat("a profile needs batch.micro_batch_tokens of at least ", kLeastTokens,
                     ", not ", request_.micro_batch_tokens));
  } else {
    ready = Allocate();
  }
  if (absl::Status status = Agree(transport_, ready); !status.ok()) return status;
  absl::StatusOr<int64_t> tokens = AffordableTokens();
  if (!tokens.ok()) return tokens.status();

  const int ranks = transport_.size();
  const std::vector<Case> cases = CasesOf(ranks, *tokens);
  std::vector<std::vector<double>> seconds(cases.size());  // of this rank, by round
  const Clock::time_point begin = Clock::now();
  CostProfile profile;
  // Round -1 warms up: buffers grow, connections are made.
  for (int round = -1; round < kMostRounds; ++round) {
    for (size_t i = 0; i < cases.size(); ++i) {
      absl::StatusOr<double> measured = Measure(cases[i]);
      if (!measured.ok()) return measured.status();
      if (round >= 0) seconds[i].push_back(*measured);
    }
    absl::StatusOr<double> passed =
        Leading(std::chrono::duration<double>(Clock::now() - begin).count());
    if (!passed.ok()) return passed.status();
    profile.rounds = round + 1;
    // As long as one more round fits.
    const double expected = *passed * (round + 3) / (round + 2);
    const bool last = profile.rounds >= kLeastRounds && expected > request_.seconds;
    if (request_.progress && transport_.rank() == 0) {
      request_.progress(last ? 1 : std::min(0.99, *passed / request_.seconds));
    }
    if (last) break;
  }
  std::vector<double> medians;
  for (std::vector<double>& rounds : seconds) medians.push_back(MedianSeconds(std::move(rounds)));
  absl::StatusOr<std::vector<std::vector<double>>> all = Gather(medians);
  if (!all.ok()) return all.status();

  // Speeds from what every rank does alone.
  double mean = 0;
  std::vector<double> alone(ranks, 0);
  for (int rank = 0; rank < ranks; ++rank) {
    for (size_t i = 0; i < cases.size(); ++i) {
      if (cases[i].members == 1) alone[rank] += (*all)[rank][i];
    }
    mean += alone[rank] / ranks;
  }
  bool differ = false;
  for (const double time : alone) {
    profile.measured_speeds.push_back(mean / time);
    differ = differ || std::abs(mean / time - 1) > kSpeedTolerance;
  }

  std::vector<CostSample> samples;
  for (size_t i = 0; i < cases.size(); ++i) {
    double sum = 0;
    int count = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const double time = (*all)[rank][i];
      if (time > 0) {
        sum += time;
        ++count;
      }
    }
    samples.push_back(
        {ShareLoad(cases[i].length, cases[i].members, 0, request_.model.window), sum / count});
  }
  absl::StatusOr<CostFit> fit = FitCost(samples);
  if (!fit.ok()) return fit.status();
  profile.cost = fit->cost;
  profile.cost.attention_window = request_.model.window;
  if (differ) profile.cost.rank_speeds = profile.measured_speeds;
  profile.median_error = fit->median_error;
  profile.worst_error = fit->worst_error;
  for (size_t i = 0; i < cases.size(); ++i) {
    profile.rows.push_back(
        {cases[i].length, cases[i].members, samples[i].seconds, fit->fitted_seconds[i]});
  }
  return profile;
}

}  // namespace

absl::StatusOr<CostProfile> ProfileCost(const ProfileRequest& request, Transport& transport,
                                        Device& device) {
  return Profiler(request, transport, device).Run();
}

}  // namespace longspan
