#include "runtime/train/cost_refit.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "kernels/device/check.h"
#include "parallel/plan_timeline.h"
#include "runtime/cost/cost_fit.h"

namespace longspan {
namespace {

constexpr double kUnitsPerSecond = 1e9 * (int64_t{1} << 20);
constexpr int kFirstFit = 8, kLastDoubling = 256;
constexpr double kAdoptBelow = 0.8;

// What rank 0 tells the others.
struct Announcement {
  int64_t adopted;
  CostVersion version;
  int64_t samples;
  double median_error, present_median_error;
};

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::vector<double> Errors(const CostModel& cost, const std::vector<CostSample>& samples) {
  std::vector<double> errors;
  for (const CostSample& sample : samples)
    errors.push_back(std::abs(MicroBatchSeconds(cost, sample.load) / sample.seconds - 1));
  return errors;
}

// Without the tenth that fits worst: a rank that the system took its core from for a while says
// nothing about the model.
std::vector<CostSample> WithoutOutliers(const std::vector<CostSample>& samples,
                                        const CostModel& cost) {
  const std::vector<double> errors = Errors(cost, samples);
  std::vector<size_t> order(samples.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return errors[a] < errors[b]; });
  order.resize(order.size() - order.size() / 10);
  std::vector<CostSample> kept;
  for (const size_t i : order) kept.push_back(samples[i]);
  return kept;
}

}  // namespace

CostUnits UnitsOf(const CostModel& cost) {
  CostUnits units{};
  const double seconds[] = {cost.attention_seconds_per_pair, cost.linear_seconds_per_token,
                            cost.ring_seconds_per_token, cost.ring_step_seconds,
                            cost.micro_batch_seconds};
  for (size_t i = 0; i < units.size(); ++i) units[i] = std::llround(seconds[i] * kUnitsPerSecond);
  return units;
}

CostModel CostOf(const CostUnits& units, const CostModel& run) {
  const auto seconds = [&](int i) { return static_cast<double>(units[i]) / kUnitsPerSecond; };
  return {seconds(0), seconds(1), seconds(2),           seconds(3),
          seconds(4), {},         run.attention_window, run.heads};
}

void CostRefit::Record(const StepPlan& plan, int rank, const std::vector<double>& seconds) {
  const std::vector<MicroBatch>& micro_batches = plan.micro_batches[rank];
  LONGSPAN_CHECK(seconds.size() == micro_batches.size(), "a time for each micro-batch");
  if (++steps_ <= kWarmUpSteps) return;
  std::vector<Sample> samples;
  for (size_t i = 0; i < seconds.size(); ++i) {
    const MicroBatchLoad load = LoadOf(plan, micro_batches[i], cost_.attention_window);
    if (load.head_parallel > 1) continue;
    samples.push_back({steps_, RingNumber(micro_batches[i]), load.tokens,
                       static_cast<int64_t>(load.pairs), static_cast<int64_t>(load.ring_pairs),
                       load.ring_tokens, load.members, seconds[i]});
  }
  samples_.push_back(std::move(samples));
  if (samples_.size() > kSteps) samples_.pop_front();
}

bool CostRefit::Due() const {
  if (steps_ % kLastDoubling == 0) return true;
  return steps_ >= kFirstFit && (steps_ & (steps_ - 1)) == 0;
}

CostRefitResult CostRefit::FitTo(const std::vector<Sample>& samples) const {
  // The members of a ring end together; the one that came last waited for nobody, and had the
  // shortest time. The time is that of the member with most to do.
  struct RingTime {
    MicroBatchLoad load;
    double seconds = 0;
    int64_t members = 0;
  };
  std::map<std::pair<int64_t, int64_t>, RingTime> rings;
  std::vector<CostSample> measured;
  for (const Sample& sample : samples) {
    const MicroBatchLoad load{sample.tokens, sample.pairs, sample.ring_pairs, sample.ring_tokens,
                              static_cast<int>(sample.members)};
    if (!(sample.seconds > 0)) continue;
    if (sample.ring < 0) {
      measured.push_back({load, sample.seconds});
      continue;
    }
    RingTime& ring = rings[{sample.step, sample.ring}];
    if (ring.members == 0 || sample.seconds < ring.seconds) ring.seconds = sample.seconds;
    if (ring.members == 0 || MicroBatchSeconds(cost_, load) > MicroBatchSeconds(cost_, ring.load))
      ring.load = load;
    ++ring.members;
  }
  bool any_ring = false;
  for (const auto& [key, ring] : rings) {
    if (ring.members != ring.load.members) continue;
    measured.push_back({ring.load, ring.seconds});
    any_ring = true;
  }
  CostRefitResult result;
  result.samples = static_cast<int64_t>(measured.size());
  absl::StatusOr<CostFit> fit = FitCost(measured);
  if (!fit.ok()) return result;  // too few of them
  if (absl::StatusOr<CostFit> again = FitCost(WithoutOutliers(measured, fit->cost)); again.ok())
    fit = std::move(again);
  CostModel cost = fit->cost;
  cost.attention_window = cost_.attention_window;
  cost.heads = cost_.heads;
  if (!any_ring) {
    cost.ring_seconds_per_token = cost_.ring_seconds_per_token;
    cost.ring_step_seconds = cost_.ring_step_seconds;
  }
  result.median_error = Median(Errors(cost, measured));
  result.present_median_error = Median(Errors(cost_, measured));
  if (!(result.median_error < kAdoptBelow * result.present_median_error)) return result;
  const CostUnits units = UnitsOf(cost);
  if (!IntegerCostModel::Create(CostOf(units, cost_), 1).ok()) return result;
  result.adopted = CostVersion{version_ + 1, 0, units};
  return result;
}

absl::StatusOr<CostRefitResult> CostRefit::Fit(int64_t from_step, Transport& transport) {
  std::string mine;
  for (const std::vector<Sample>& step : samples_) {
    if (!step.empty())
      mine.append(reinterpret_cast<const char*>(step.data()), step.size() * sizeof(Sample));
  }
  absl::StatusOr<std::vector<std::string>> all = transport.AllGatherBytes(mine);
  if (!all.ok()) return all.status();
  Announcement announcement{};
  if (transport.rank() == 0) {
    std::vector<Sample> samples;
    for (const std::string& bytes : *all) {
      if (bytes.empty()) continue;  // memcpy() takes no null pointer, not even for no bytes
      const size_t before = samples.size();
      samples.resize(before + bytes.size() / sizeof(Sample));
      std::memcpy(samples.data() + before, bytes.data(), bytes.size());
    }
    const CostRefitResult result = FitTo(samples);
    announcement.adopted = result.adopted.has_value() ? 1 : 0;
    if (result.adopted.has_value()) announcement.version = *result.adopted;
    announcement.version.from_step = from_step;
    announcement.samples = result.samples;
    announcement.median_error = result.median_error;
    announcement.present_median_error = result.present_median_error;
  }
  absl::StatusOr<std::string> told = transport.BroadcastBytes(
      std::string(reinterpret_cast<const char*>(&announcement), sizeof(announcement)), /*root=*/0);
  if (!told.ok()) return told.status();
  std::memcpy(&announcement, told->data(), sizeof(announcement));
  CostRefitResult result;
  result.samples = announcement.samples;
  result.median_error = announcement.median_error;
  result.present_median_error = announcement.present_median_error;
  if (announcement.adopted != 0) {
    result.adopted = announcement.version;
    cost_ = CostOf(announcement.version.units, cost_);
    version_ = announcement.version.version;
  }
  return result;
}

}  // namespace longspan
