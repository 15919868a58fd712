#include "parallel/simulator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <queue>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "parallel/integer_cost.h"
#include "parallel/plan_timeline.h"
#include "parallel/ring_simulation.h"

namespace longspan {
namespace {

constexpr double kForwardShare = 1.0 / 3;
constexpr int kMostStages = 1024;
// Parts of the gradient that are reduced one after another.
constexpr int kBuckets = 16;

enum Direction { kForward, kBackward, kDirections };

uint64_t Mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// exp(deviation * z) for a standard normal z that depends on the arguments alone, so that the order
// of events changes nothing.
double Slowness(double deviation, uint64_t seed, uint64_t device, uint64_t work) {
  if (deviation == 0) return 1;
  const uint64_t bits = Mix(Mix(Mix(seed) ^ device) ^ work);
  const double u = (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
  const double v = static_cast<double>(Mix(bits) >> 11) * 0x1p-53;
  return std::exp(deviation * std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v));
}

absl::Status Check(const SimulationRequest& request) {
  if (request.stages < 1 || request.stages > kMostStages) {
    return absl::InvalidArgumentError(absl::StrCat(
        "simulator: ", request.stages, " pipeline stages; there must be from 1 to ", kMostStages));
  }
  const UpdateModel& update = request.update;
  const struct {
    const char* name;
    double value, most;
  } ranges[] = {{"rank deviation", request.jitter.rank_deviation, 1},
                {"micro-batch deviation", request.jitter.micro_batch_deviation, 1},
                {"gradient bytes", update.gradient_bytes, 1e18},
                {"parameter bytes", update.parameter_bytes, 1e18},
                {"bytes per second", update.bytes_per_second, 1e18},
                {"latency in seconds", update.latency_seconds, 1e6},
                {"optimizer seconds", update.optimizer_seconds, 1e9}};
  for (const auto& range : ranges) {
    if (!(range.value >= 0 && range.value <= range.most)) {  // NaN fails too
      return absl::InvalidArgumentError(absl::StrCat("simulator: ", range.name, " is ", range.value,
                                                     "; it must lie between 0 and ", range.most));
    }
  }
  if (update.gradient_bytes + update.parameter_bytes > 0 && update.bytes_per_second == 0) {
    return absl::InvalidArgumentError(
        "simulator: gradients have bytes, but links no bytes per second");
  }
  return absl::OkStatus();
}

// One stage of one rank.
struct Device {
  bool busy = false;
  double free_since = 0;
  struct Pass {
    size_t next = 0;      // micro-batch
    size_t finished = 0;  // micro-batches
    bool ready = false;   // `next` has its input
    double ready_at = 0;
  };
  std::array<Pass, kDirections> passes;
  Direction running = kForward;
  // Of the latest backward pass.
  double backward_begin = 0, backward_end = 0;
  bool backward_in_ring = false;
  double slowness = 1;
  RankTimes times;
};

class Simulation {
 public:
  Simulation(const PlanOutline& outline, const PlanTimeline& timeline,
             const SimulationRequest& request)
      : outline_(outline),
        timeline_(timeline),
        request_(request),
        cost_(request.cost),
        ranks_(static_cast<int>(outline.micro_batches.size())),
        stages_(request.stages),
        devices_(static_cast<size_t>(ranks_) * stages_),
        ready_members_(outline.rings.size() * stages_ * kDirections, 0) {
    for (size_t i = 0; i < devices_.size(); ++i) {
      const size_t rank = i / stages_;
      const double speed = cost_.rank_speeds.empty() ? 1 : cost_.rank_speeds[rank];
      devices_[i].slowness =
          Slowness(request.jitter.rank_deviation, request.jitter.seed, i, ~uint64_t{0}) / speed;
    }
  }

  absl::Status Run() {
    std::vector<size_t> woken(devices_.size());
    std::iota(woken.begin(), woken.end(), 0);
    Wake(woken, 0);
    while (!events_.empty()) {
      // What ends at one moment is seen together: choices do not depend on the order of the queue.
      const double now = events_.top().first;
      woken.clear();
      for (; !events_.empty() && events_.top().first == now; events_.pop()) {
        const size_t index = events_.top().second;
        Finish(index, now);
        woken.push_back(index);
        const size_t stage = index % stages_;
        if (stage > 0) woken.push_back(index - 1);
        if (stage + 1 < stages_) woken.push_back(index + 1);
      }
      Wake(woken, now);
    }
    for (size_t i = 0; i < devices_.size(); ++i) {
      if (devices_[i].passes[kBackward].finished != List(i).size()) {
        return absl::InternalError(
            absl::StrCat("simulator: rank ", i / stages_, " waits for a ring that never meets"));
      }
    }
    return absl::OkStatus();
  }

  StepSimulation Result(int64_t tokens) {
    StepSimulation result;
    double& end = result.micro_batches_seconds;
    for (const Device& device : devices_) end = std::max(end, device.free_since);
    result.step_seconds = UpdateEnd(end);
    result.tokens_per_second =
        result.step_seconds > 0 ? static_cast<double>(tokens) / result.step_seconds : 0;
    const double share = 1.0 / static_cast<double>(stages_);
    for (int rank = 0; rank < ranks_; ++rank) {
      RankTimes& sum = result.ranks.emplace_back();
      for (size_t stage = 0; stage < stages_; ++stage) {
        const Device& device = devices_[rank * stages_ + stage];
        sum.busy += device.times.busy * share;
        sum.group_wait += device.times.group_wait * share;
        sum.exposed_transfer += device.times.exposed_transfer * share;
        sum.stage_wait += device.times.stage_wait * share;
        sum.idle += (end - device.free_since) * share;
      }
      sum.update = result.step_seconds - end;
    }
    return result;
  }

 private:
  using Event = std::pair<double, size_t>;  // when a device is done with a pass

  const std::vector<TimedMicroBatch>& List(size_t index) const {
    return timeline_.micro_batches[index / stages_];
  }
  // Of the micro-batch that the device's pass comes to next.
  int64_t NextRing(size_t index, Direction direction) const {
    return List(index)[devices_[index].passes[direction].next].ring;
  }
  int& ReadyMembers(int64_t ring, size_t stage, Direction direction) {
    return ready_members_[(ring * stages_ + stage) * kDirections + direction];
  }

  void Wake(const std::vector<size_t>& woken, double now) {
    for (const size_t index : woken) {
      LookForInput(index, kForward, now);
      LookForInput(index, kBackward, now);
    }
    for (const size_t index : woken) StartIfPossible(index, now);
  }

  void LookForInput(size_t index, Direction direction, double now) {
    Device& device = devices_[index];
    Device::Pass& pass = device.passes[direction];
    if (pass.ready || pass.next == List(index).size()) return;
    const size_t stage = index % stages_;
    if (direction == kForward) {
      if (stage > 0 && devices_[index - 1].passes[kForward].finished <= pass.next) return;
      if (pass.next - device.passes[kBackward].finished >= stages_ - stage) return;
    } else {
      const bool last = stage + 1 == stages_;
      const Device& source = last ? device : devices_[index + 1];
      if (source.passes[last ? kForward : kBackward].finished <= pass.next) return;
    }
    pass.ready = true;
    pass.ready_at = now;
    const int64_t ring = NextRing(index, direction);
    if (ring >= 0) ++ReadyMembers(ring, stage, direction);
  }

  // Forward first. A device that a complete ring waits for starts nothing else: the ring's other
  // members could otherwise be kept from it again and again.
  void StartIfPossible(size_t index, double now) {
    if (devices_[index].busy) return;
    const size_t stage = index % stages_;
    bool wanted = false;
    for (const Direction direction : {kForward, kBackward}) {
      if (!devices_[index].passes[direction].ready) continue;
      const int64_t number = NextRing(index, direction);
      if (number < 0) continue;
      const std::vector<int>& ranks = outline_.rings[number].ranks;
      if (ReadyMembers(number, stage, direction) < static_cast<int>(ranks.size())) continue;
      wanted = true;
      if (std::all_of(ranks.begin(), ranks.end(),
                      [&](int rank) { return !devices_[rank * stages_ + stage].busy; })) {
        StartRing(ranks, stage, direction, now);
        return;
      }
    }
    if (wanted) return;
    for (const Direction direction : {kForward, kBackward}) {
      if (!devices_[index].passes[direction].ready || NextRing(index, direction) >= 0) continue;
      const RingMemberWork work = WorkOf(index, direction);
      RingMemberTimes times;
      times.busy = work.before + work.beside;
      Begin(index, direction, times, now);
      return;
    }
  }

  double PassShare(Direction direction) const {
    return (direction == kForward ? kForwardShare : 1 - kForwardShare) /
           static_cast<double>(stages_);
  }

  RingMemberWork WorkOf(size_t index, Direction direction) const {
    const Device& device = devices_[index];
    const size_t next = device.passes[direction].next;
    const MicroBatchLoad& load = List(index)[next].load;
    const double scale = PassShare(direction) * device.slowness *
                         Slowness(request_.jitter.micro_batch_deviation, request_.jitter.seed,
                                  index, next * kDirections + direction);
    RingMemberWork work;
    work.before = scale * (cost_.micro_batch_seconds +
                           cost_.linear_seconds_per_token * static_cast<double>(load.tokens));
    work.block = scale * cost_.attention_seconds_per_pair * static_cast<double>(load.ring_pairs) *
                 load.head_parallel / load.members;
    work.beside = scale * cost_.attention_seconds_per_pair *
                  static_cast<double>(load.pairs - load.ring_pairs);
    return work;
  }

  void StartRing(const std::vector<int>& ranks, size_t stage, Direction direction, double now) {
    std::vector<RingMemberWork> members;
    members.reserve(ranks.size());
    for (const int rank : ranks) members.push_back(WorkOf(rank * stages_ + stage, direction));
    const size_t first = ranks[0] * stages_ + stage;
    const MicroBatchLoad& load = List(first)[devices_[first].passes[direction].next].load;
    const double share = PassShare(direction);
    const double hop =
        share * cost_.ring_seconds_per_token * static_cast<double>(load.ring_tokens) / load.members;
    const std::vector<RingMemberTimes> times =
        load.head_parallel == 1
            ? SimulateRing(members, hop, share * cost_.ring_step_seconds)
            : SimulateHeads(members, load.head_parallel, hop, share * cost_.ring_step_seconds);
    for (size_t i = 0; i < ranks.size(); ++i) {
      Begin(ranks[i] * stages_ + stage, direction, times[i], now);
    }
  }

  // Members in blocks of `heads`: a ring for each share of the heads, between exchanges in which
  // the members of a block wait for each other. Nothing is done beside the exchanges.
  std::vector<RingMemberTimes> SimulateHeads(const std::vector<RingMemberWork>& members, int heads,
                                             double hop_seconds, double step_seconds) const {
    std::vector<RingMemberTimes> times(members.size());
    for (size_t first = 0; first < static_cast<size_t>(heads); ++first) {
      std::vector<RingMemberWork> ring;
      for (size_t i = first; i < members.size(); i += heads) ring.push_back(members[i]);
      const std::vector<RingMemberTimes> of_ring = SimulateRing(ring, hop_seconds, step_seconds);
      for (size_t i = 0; i < ring.size(); ++i) times[first + i * heads] = of_ring[i];
    }
    const double exchange = hop_seconds * cost_.heads.ExchangeShare() * (heads - 1) / heads +
                            kHeadExchangeSteps * step_seconds;
    for (size_t block = 0; block < members.size(); block += heads) {
      double longest = 0;
      for (int i = 0; i < heads; ++i) longest = std::max(longest, times[block + i].total());
      for (int i = 0; i < heads; ++i) {
        times[block + i].group_wait += longest - times[block + i].total();
        times[block + i].exposed_transfer += exchange;
      }
    }
    return times;
  }

  void Begin(size_t index, Direction direction, const RingMemberTimes& times, double now) {
    Device& device = devices_[index];
    Device::Pass& pass = device.passes[direction];
    const double ready = std::max(pass.ready_at, device.free_since);
    device.times.stage_wait += ready - device.free_since;
    device.times.group_wait += now - ready + times.group_wait;
    device.times.busy += times.busy;
    device.times.exposed_transfer += times.exposed_transfer;
    if (direction == kBackward) {
      device.backward_begin = now;
      device.backward_end = now + times.total();
      device.backward_in_ring = NextRing(index, direction) >= 0;
    }
    pass.ready = false;
    ++pass.next;
    device.running = direction;
    device.busy = true;
    events_.push({now + times.total(), index});
  }

  void Finish(size_t index, double now) {
    Device& device = devices_[index];
    device.busy = false;
    device.free_since = now;
    ++device.passes[device.running].finished;
  }

  // When parameters are there again; `end`: of the micro-batches.
  double UpdateEnd(double end) const {
    const UpdateModel& update = request_.update;
    const double ranks = ranks_, stages = static_cast<double>(stages_);
    const auto collective = [&](double bytes) {
      return bytes == 0 || ranks_ == 1
                 ? 0
                 : bytes / stages * (ranks - 1) / ranks / update.bytes_per_second;
    };
    const double latency = ranks_ == 1 ? 0 : update.latency_seconds;
    const double bucket_seconds = collective(update.gradient_bytes) / kBuckets;
    // Each stage reduces its own gradients; the norm of all is needed before the first update.
    double reduced = end;
    for (size_t stage = 0; stage < stages_; ++stage) {
      double now = 0;
      for (int bucket = 1; bucket <= kBuckets; ++bucket) {
        double ready = 0;
        for (size_t i = stage; i < devices_.size(); i += stages_) {
          const Device& device = devices_[i];
          const double passed = device.backward_end - device.backward_begin;
          ready = std::max(ready, device.backward_in_ring
                                      ? device.backward_end
                                      : device.backward_begin + passed * bucket / kBuckets);
        }
        now = std::max(now, ready) + bucket_seconds;
      }
      reduced = std::max(reduced, now + latency);
    }
    return reduced + update.optimizer_seconds / (ranks * stages) +
           collective(update.parameter_bytes) + latency;
  }

  const PlanOutline& outline_;
  const PlanTimeline& timeline_;
  const SimulationRequest& request_;
  const CostModel& cost_;
  const int ranks_;
  const size_t stages_;
  std::vector<Device> devices_;     // by rank, then stage
  std::vector<int> ready_members_;  // by ring, stage and direction
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
};

}  // namespace

UpdateModel AnalyticUpdateModel(double parameters, double bytes_per_second, double bytes_each) {
  constexpr double kOptimizerBytes = 30, kMemoryBytesPerSecond = 1.5e12;
  return {bytes_each * parameters, 2 * parameters, bytes_per_second, /*latency_seconds=*/1e-3,
          parameters * kOptimizerBytes / kMemoryBytesPerSecond};
}

absl::StatusOr<StepSimulation> SimulateStep(const PlanOutline& outline,
                                            const std::vector<int64_t>& lengths,
                                            const SimulationRequest& request) {
  if (absl::Status status = Check(request); !status.ok()) return status;
  const absl::StatusOr<IntegerCostModel> cost =
      IntegerCostModel::Create(request.cost, static_cast<int>(outline.micro_batches.size()));
  if (!cost.ok()) return cost.status();
  const PlanTimeline timeline = TimelineOf(outline, lengths, *cost);
  Simulation simulation(outline, timeline, request);
  if (absl::Status status = simulation.Run(); !status.ok()) return status;
  return simulation.Result(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
}

}  // namespace longspan
