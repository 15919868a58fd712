#include "parallel/skyline_planner.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "parallel/bytescale_planner.h"
#include "parallel/head_placement.h"
#include "parallel/lower_bounds.h"
#include "parallel/mesh_planners.h"
#include "parallel/node_placement.h"
#include "parallel/plan_improvement.h"
#include "parallel/skyline_draft.h"
#include "parallel/sorted_batch.h"

namespace longspan {
namespace {

// Effort of the search, in segments of the skyline looked at: some ten nanoseconds each.
constexpr int64_t kGuessEffort = 1 << 22;
constexpr int64_t kSearchEffort = 1 << 21, kSearchEffortEach = 1 << 13;
constexpr int64_t kImprovementEffort = 1 << 18;  // in sequences and ranks
// With more whole sequences than this they are taken as a fluid that fills what rings leave, until
// the rings are chosen.
constexpr int64_t kFewWholes = 64;
// Batches of at most this many sequences and ranks together are improved sequence by sequence.
constexpr int64_t kSmall = 1024;
// Those of more than kLarge are not compared with other policies once the gap is 1/kLargeGap.
constexpr int64_t kLarge = 1 << 15;
constexpr int kLargeGap = 200;
// With heads split, a plan is compared with one for rings alone unless the gap is 1/kHeadsGap.
constexpr int kHeadsGap = 100;

// The guess of the makespan rises above the bound by 1/kFirstStep, then twice that, and so on.
constexpr int kFirstStep = 1024;
constexpr int kSteps = 22;

constexpr size_t kMostPeers = 4;

// The most ranks that any rank meets in rings.
size_t MostPeers(const PlanOutline& outline) {
  std::vector<absl::InlinedVector<int, kMostPeers + 1>> peers(outline.micro_batches.size());
  size_t most = 0;
  const auto meet = [&](int rank, int peer) {
    auto& known = peers[rank];
    if (std::find(known.begin(), known.end(), peer) != known.end()) return;
    known.push_back(peer);
    most = std::max(most, known.size());
  };
  for (const PlanOutline::Ring& ring : outline.rings) {
    // Those of a block that splits heads are on one node and do not count.
    for (size_t i = 0; i < ring.ranks.size() && most <= kMostPeers; ++i) {
      const int next = ring.ranks[(i + ring.head_parallel) % ring.ranks.size()];
      if (next == ring.ranks[i]) break;  // the block is all of it
      meet(ring.ranks[i], next);
      meet(next, ring.ranks[i]);
    }
  }
  return most;
}

const BytescalePlanner kBytescale;
const NaivePlanner kNaive;
const StaticPlanner kStatic;
const Planner* const kOthers[] = {&kBytescale, &kNaive, &kStatic};
constexpr int kMoreRounds = 8;

class SkylineSearch {
 public:
  SkylineSearch(const PlanRequest& request, const IntegerCostModel& cost)
      : request_(request),
        cost_(cost),
        batch_(request),
        bound_(LowerBoundsOf(request.lengths, request.ranks, request.micro_batch_tokens, cost)
                   .greatest()),
        small_(batch_.size() + request.ranks <= kSmall),
        target_(bound_ + bound_ / (small_ ? 1000 : 100)) {
    // Beyond these a ring would only add messages.
    for (; wide_ < batch_.size(); ++wide_) {
      if (wide_ >= batch_.first_short() && wide_ >= kFewWholes &&
          cost.SequenceArea(batch_.length(wide_), 1) * kWholeShare < bound_) {
        break;
      }
    }
    long_ = wide_;
    while (long_ < batch_.size() &&
           cost.SequenceArea(batch_.length(long_), 1) * kLongShare > bound_) {
      ++long_;
    }
    for (int64_t place = 0; place < wide_; ++place) {
      const bool same = place > 0 && batch_.length(place) == batch_.length(place - 1);
      least_width_work_.push_back(
          same ? least_width_work_.back()
               : RingWork(cost, batch_.length(place), batch_.minimum_width(place)));
    }
    const int64_t capacity = request.micro_batch_tokens;
    int64_t tokens = 0;
    for (int64_t place = wide_; place < batch_.size(); ++place) {
      tokens += batch_.length(place);
      fluid_ += cost.SequenceArea(batch_.length(place), 1);
    }
    fluid_ += cost.micro_batch() * ((tokens + capacity - 1) / capacity);
  }

  PlanOutline Run() {
    DraftByGuess();
    const bool few = wide_ > 0 && wide_ <= kFewWide && request_.ranks <= kFewRanks;
    if (few && !Done()) {
      DraftByShares();
      ChangeOneByOne(best_->widths, 1);
    }
    PlanOutline outline = Finish();
    PlanningTime makespan = TimelineOf(outline, request_.lengths, cost_).makespan;
    const bool large = batch_.size() + request_.ranks > kLarge;
    if (makespan <= bound_ + (large ? bound_ / kLargeGap : 0)) return outline;
    // Other policies choose ranks more freely: where that is better their plan is taken, or if it
    // has too many peers, the search goes on until it is as good.
    for (const Planner* policy : kOthers) {
      if (BoundOf(policy) >= makespan) continue;
      absl::StatusOr<PlanOutline> other = policy->Outline(request_);
      if (!other.ok()) continue;
      const PlanningTime time = TimelineOf(*other, request_.lengths, cost_).makespan;
      for (int round = 1; small_ && few && time < makespan && round <= kMoreRounds; ++round) {
        ChangeOneByOne(round % 2 == 0 ? best_->widths : LeastWidths(), round + 1);
        PlanOutline next = Finish(kMoreRounds);
        const PlanningTime next_time = TimelineOf(next, request_.lengths, cost_).makespan;
        if (next_time >= makespan) continue;
        makespan = next_time;
        outline = std::move(next);
      }
      if (time >= makespan || MostPeers(*other) > kMostPeers) continue;
      makespan = time;
      outline = *std::move(other);
    }
    return outline;
  }

 private:
  static constexpr int64_t kWholeShare = 8;  // a whole sequence takes at most this part of a step
  static constexpr int64_t kLongShare = 64;  // one that takes more is not taken as a fluid
  static constexpr int64_t kFluidShare = 8;  // a fluid of this part of all work levels rings out
  static constexpr int64_t kFewWide = 512;   // few enough to try them one by one
  static constexpr int kFewRanks = 2048;
  // Less would be all overhead, which the cost model does not know.
  static constexpr int64_t kLeastShare = 64;
  static constexpr int kShareSteps = 8;
  static constexpr int kMakespanWeight = 4;
  static constexpr int kFirstThreshold = 50;  // a change may cost 1/50 at first
  static constexpr int64_t kRingEffort = 8;   // of placing one, in segments looked at

  // Of the places that may take several ranks; 1: whole.
  using Widths = std::vector<int>;

  struct Candidate {
    Widths widths;
    SkylineDraft draft;
    int64_t singles_end = 0;    // whole places before it are in the draft
    bool filled = false;        // whether the draft has the whole sequences
    PlanningTime makespan = 0;  // with the fluid of whole ones, unless filled
    PlanningTime busy = 0;
  };

  PlanningTime Work(int64_t place, int width) const {
    if (place < wide_ && width == batch_.minimum_width(place)) return least_width_work_[place];
    return RingWork(cost_, batch_.length(place), width);
  }

  // More members would hold less than kLeastShare tokens each.
  int MostWidth(int64_t place) const {
    const int64_t most = std::min<int64_t>(request_.ranks, batch_.length(place) / kLeastShare);
    return std::max(batch_.minimum_width(place), static_cast<int>(most));
  }

  // The smallest width that holds the place and takes at most `limit`; if there is none the
  // fastest, to within the steps of the search. Groups that split heads by h have a multiple of h
  // members, and times that fall and rise over these multiples: they are searched apart.
  int WidthWithin(int64_t place, PlanningTime limit) const {
    int best = WidthWithin(place, limit, 1);
    if (cost_.head_widths().size() == 1) return best;
    PlanningTime best_time = Work(place, best);
    for (const int heads : cost_.head_widths()) {
      const int most = MostWidth(place) / heads * heads;
      if (heads == 1 || most < batch_.minimum_width(place)) continue;
      const int width = WidthWithin(place, limit, heads);
      const PlanningTime time = Work(place, width);
      if (best_time <= limit ? time <= limit && width < best : time < best_time) {
        best = width;
        best_time = time;
      }
    }
    return best;
  }

  // Of the multiples of `step`, of which one is within MostWidth.
  int WidthWithin(int64_t place, PlanningTime limit, int step) const {
    const int most = MostWidth(place) / step * step;
    int low = (batch_.minimum_width(place) + step - 1) / step * step;
    PlanningTime time = Work(place, low);
    if (time <= limit) return low;
    // Times fall, then rise. Doubles the width while they fall.
    int high = low;
    while (high < most) {
      const int next = std::min(most, 2 * high);
      const PlanningTime next_time = Work(place, next);
      if (next_time <= limit) {
        low = high;
        high = next;
        break;
      }
      if (next_time >= time) {
        return Fastest(place, std::max(low, high / 2 / step * step), next, step);
      }
      low = high;
      high = next;
      time = next_time;
      if (high == most) return Fastest(place, low, high, step);
    }
    while (high - low > step) {
      const int middle = low + (high - low) / 2 / step * step;
      (Work(place, middle) <= limit ? high : low) = middle;
    }
    return high;
  }

  // `low` and `high` are multiples of `step`, as is what it returns.
  int Fastest(int64_t place, int low, int high, int step) const {
    while (high - low > 2 * step) {
      const int third = (high - low) / 3 / step * step;
      const int a = low + third, b = high - third;
      if (Work(place, a) <= Work(place, b)) {
        high = b;
      } else {
        low = a;
      }
    }
    int best = low;
    for (int width = low + step; width <= high; width += step) {
      if (Work(place, width) < Work(place, best)) best = width;
    }
    return best;
  }

  // As WidthWithin. Once a place may stay whole, so may all after it.
  Widths WidthsWithin(PlanningTime limit) const {
    Widths widths(wide_, 1);
    for (int64_t place = 0; place < wide_; ++place) {
      if (place >= batch_.first_short() && Work(place, 1) <= limit) break;
      if (place > 0 && batch_.length(place) == batch_.length(place - 1)) {
        widths[place] = widths[place - 1];
      } else {
        widths[place] = WidthWithin(place, limit);
      }
    }
    if (cost_.head_widths().size() > 1 && request_.ranks_per_node > 0) AlignWidths(widths, limit);
    return widths;
  }

  // Widths that are multiples of blocks, placed one beside the other from the longest on, leave no
  // block with a border between nodes in it. Where splitting heads helps some ring, all are
  // widened to such multiples, unless that costs time.
  void AlignWidths(Widths& widths, PlanningTime limit) const {
    const auto helps = [&](int64_t place) {
      return widths[place] > 1 &&
             Work(place, widths[place]) < RingWork(cost_, batch_.length(place), widths[place], {1});
    };
    const auto wide = static_cast<int64_t>(widths.size());
    bool any = cost_.widest_heads();
    for (int64_t place = 0; place < wide && !any; ++place) any = helps(place);
    for (int64_t place = 0; place < wide && any; ++place) {
      // Narrow ones take half of their ranks for a block: they lie within nodes, mostly.
      int block = 1;
      for (const int heads : cost_.head_widths()) {
        if (2 * heads <= widths[place] && request_.ranks_per_node % heads == 0) block = heads;
      }
      const int aligned = (widths[place] + block - 1) / block * block;
      if (aligned == widths[place] || aligned > MostWidth(place)) continue;
      if (Work(place, aligned) <= std::max(limit, Work(place, widths[place]))) {
        widths[place] = aligned;
      }
    }
  }

  void Fill(Candidate& candidate) const {
    std::vector<int64_t> wholes;
    for (int64_t place = 0; place < batch_.size(); ++place) {
      const bool ring = place < wide_ && candidate.widths[place] > 1;
      if (!ring && place >= candidate.singles_end) wholes.push_back(place);
    }
    AddWholes(batch_, cost_, request_.micro_batch_tokens, wholes, candidate.draft);
    candidate.filled = true;
    candidate.makespan = candidate.draft.makespan;
    candidate.busy = candidate.draft.busy;
  }

  // Tries one placement; keeps it if it is the best so far. The order is that of places, or if
  // there is no limit, of falling time.
  void Try(const Widths& widths, std::optional<PlanningTime> limit,
           Skyline::Choice choice = Skyline::Choice::kFreeFirst) {
    Candidate candidate{widths};
    std::vector<PlacedSequence> wide;
    PlanningTime fluid = fluid_;
    // Filling up takes the long ones among the whole sequences along: they would not fit what rings
    // leave.
    const bool singles = choice == Skyline::Choice::kFullest;
    if (singles) candidate.singles_end = long_;
    for (int64_t place = 0; place < (singles ? long_ : wide_); ++place) {
      const int width = place < wide_ ? candidate.widths[place] : 1;
      if (width > 1 || singles) {
        wide.push_back({place, width, Work(place, width), batch_.length(place)});
        if (place >= wide_) fluid -= cost_.SequenceArea(batch_.length(place), 1);
      } else {
        fluid += Work(place, 1);
      }
    }
    if (!limit.has_value()) {
      std::stable_sort(wide.begin(), wide.end(),
                       [](const auto& a, const auto& b) { return a.work > b.work; });
    }
    Draft(std::move(candidate), wide, fluid, limit, choice);
  }

  // The score of a placement, if it keeps to the limit. Keeps the best.
  std::optional<PlanningTime> Draft(Candidate candidate, const std::vector<PlacedSequence>& wide,
                                    PlanningTime fluid, std::optional<PlanningTime> limit,
                                    Skyline::Choice choice) {
    int64_t scanned = 0;
    std::optional<SkylineDraft> draft =
        DraftRings(cost_, request_.ranks, request_.ranks_per_node, wide, limit, choice, scanned);
    effort_ -= scanned + kRingEffort * static_cast<int64_t>(wide.size()) + request_.ranks;
    if (!draft.has_value()) return std::nullopt;
    candidate.draft = *std::move(draft);
    if (batch_.size() - wide_ <= kFewWholes) {
      Fill(candidate);
    } else {
      // Waits are filled too, mostly.
      candidate.busy = candidate.draft.busy - candidate.draft.waiting / 2 + fluid;
      candidate.makespan = std::max(candidate.draft.makespan, cost_.OnAllRanks(candidate.busy));
    }
    // Of equal makespans the one that leaves more room for the next change.
    const PlanningTime score =
        candidate.makespan * request_.ranks * kMakespanWeight + candidate.busy;
    if (!best_.has_value() || score < best_score_) {
      best_ = std::move(candidate);
      best_score_ = score;
    }
    return score;
  }

  PlanOutline Finish(int64_t patience = 1) {
    Candidate candidate = *best_;
    if (!candidate.filled) Fill(candidate);
    PlanOutline outline = OutlineOf(candidate.draft, batch_, request_.ranks);
    ChooseHeads(outline, request_.lengths, cost_);
    if (small_) {
      Improve(outline, request_.lengths, request_.micro_batch_tokens, cost_, target_,
              patience * kImprovementEffort / (batch_.size() + request_.ranks));
    }
    return outline;
  }

  // What another policy takes at least: plans are made only where they may be better. That of a
  // static mesh may have millions of slices.
  PlanningTime BoundOf(const Planner* policy) const {
    if (batch_.size() == 0) return 0;
    const int degree = policy == &kStatic ? StaticDegree(request_) : batch_.minimum_width(0);
    const PlanningTime longest = cost_.OnFastestRank(cost_.Sequence(batch_.length(0), degree));
    if (policy != &kStatic) return longest;
    int64_t tokens = 0;
    PlanningTime area = 0;
    for (const int64_t length : request_.lengths) {
      tokens += length;
      area += cost_.SequenceArea(length, 1);
    }
    const int64_t pack = request_.micro_batch_tokens * degree;
    MicroBatchLoad empty;
    empty.members = degree;
    const PlanningTime packs = cost_.MicroBatch(empty) * degree * ((tokens + pack - 1) / pack);
    return std::max(longest, cost_.OnAllRanks(area + packs));
  }

  Widths LeastWidths() const {
    Widths widths;
    for (int64_t place = 0; place < wide_; ++place) widths.push_back(batch_.minimum_width(place));
    return widths;
  }

  bool Done() const { return best_.has_value() && best_->makespan <= target_; }

  // Whether some placement keeps to `guess`, or nearly.
  bool TryGuess(PlanningTime guess) {
    const Widths widths = WidthsWithin(guess);
    // A fluid levels out whatever rings leave; without much of it they must fit together.
    const bool fluid_levels = fluid_ * kFluidShare > bound_ * request_.ranks;
    if (fluid_levels || wide_ <= kFewWide) Try(widths, guess);
    if ((!fluid_levels || wide_ <= kFewWide) && !Done()) {
      Try(widths, guess, Skyline::Choice::kFullest);
    }
    return best_.has_value() && best_->makespan <= guess + guess / kFirstStep;
  }

  void DraftByGuess() {
    effort_ = kGuessEffort;
    PlanningTime failed = bound_, reached = 0;
    for (int step = 0; step < kSteps && effort_ > 0 && !Done(); ++step) {
      const PlanningTime guess =
          bound_ + (step == 0 ? 0 : bound_ * (PlanningTime{1} << (step - 1)) / kFirstStep);
      if (TryGuess(guess)) {
        reached = guess;
        break;
      }
      failed = guess;
    }
    // Wider guesses only make narrower groups: the best is between the last two.
    while (reached != 0 && effort_ > 0 && !Done() && (reached - failed) * kFirstStep > bound_) {
      const PlanningTime guess = failed + (reached - failed) / 2;
      (TryGuess(guess) ? reached : failed) = guess;
    }
    if (!best_.has_value()) Try(WidthsWithin(bound_ + bound_ / 64), std::nullopt);
  }

  // Groups that end after a half or a third of the step stack up better than any of its length.
  void DraftByShares() {
    effort_ = std::min(kSearchEffort, kSearchEffortEach * (wide_ + request_.ranks));
    for (int step = 0; step < kShareSteps && effort_ > 0 && !Done(); ++step) {
      const PlanningTime guess = bound_ + bound_ * step / kShareSteps;
      for (int share = 1; share <= 3; ++share) Try(WidthsWithin(guess / share), std::nullopt);
    }
  }

  // Changes one width, or one place in the order, at a time: as long as each change helps, then by
  // threshold accepting, which takes what is worse by less and less.
  void ChangeOneByOne(Widths widths, uint64_t random) {
    effort_ = std::min(kSearchEffort, kSearchEffortEach * (wide_ + request_.ranks));
    std::vector<int64_t> order(wide_);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return Work(a, widths[a]) > Work(b, widths[b]); });
    const auto below = [&random](int64_t end) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      return static_cast<int64_t>((random >> 33) % static_cast<uint64_t>(end));
    };
    const auto draft = [&] {
      std::vector<PlacedSequence> wide;
      PlanningTime fluid = fluid_;
      for (const int64_t place : order) {
        const PlanningTime work = Work(place, widths[place]);
        if (widths[place] == 1) {
          fluid += work;
        } else {
          wide.push_back({place, widths[place], work, batch_.length(place)});
        }
      }
      return *Draft(Candidate{widths}, wide, fluid, std::nullopt, Skyline::Choice::kFreeFirst);
    };
    const int choices = cost_.head_widths().size() == 1 ? 4 : 6;
    PlanningTime score = draft();
    // Keeps the change that `undo` takes back if it costs at most `more`.
    const auto keep = [&](PlanningTime more, const auto& undo) {
      const PlanningTime now = draft();
      const bool better = now < score;
      if (now <= score + more) {
        score = now;
      } else {
        undo();
      }
      return better;
    };
    const auto change_width = [&](int64_t place, int choice, PlanningTime more) {
      const int old = widths[place], least = batch_.minimum_width(place);
      const int most_heads = cost_.head_widths().back();
      const int others[] = {old - 1, old + 1, least, 2 * old, old - most_heads, old + most_heads};
      const int width = others[choice];
      if (width < least || width > MostWidth(place) || width == old) return false;
      widths[place] = width;
      return keep(more, [&] { widths[place] = old; });
    };
    // First downhill, width by width.
    for (bool improved = true; improved && effort_ > 0 && !Done();) {
      improved = false;
      for (int64_t place = 0; place < wide_ && effort_ > 0 && !Done(); ++place) {
        for (int choice = 0; choice < choices; ++choice) {
          improved = change_width(place, choice, 0) || improved;
        }
        const auto at = std::find(order.begin(), order.end(), place);
        if (widths[place] == 1 || at == order.begin()) continue;
        const std::vector<int64_t> before = order;
        std::rotate(order.begin(), at, at + 1);
        improved = keep(0, [&] { order = before; }) || improved;
      }
    }
    const int64_t effort = std::max<int64_t>(effort_, 1);
    while (effort_ > 0 && !Done()) {
      const PlanningTime threshold = score / kFirstThreshold * effort_ / effort;
      effort_ -= kRingEffort * wide_;  // some changes change nothing
      const int64_t from = below(wide_);
      if (below(2) == 0) {
        change_width(order[from], static_cast<int>(below(choices)), threshold);
      } else {
        const int64_t to = below(wide_);
        if (from == to || (widths[order[from]] == 1 && widths[order[to]] == 1)) continue;
        std::swap(order[from], order[to]);
        keep(threshold, [&] { std::swap(order[from], order[to]); });
      }
    }
  }

  const PlanRequest& request_;
  const IntegerCostModel& cost_;
  const SortedBatch batch_;
  const PlanningTime bound_;
  const bool small_;
  const PlanningTime target_;
  int64_t wide_ = 0;                            // places that may take several ranks
  int64_t long_ = 0;                            // places that are not a fluid
  std::vector<PlanningTime> least_width_work_;  // by place
  PlanningTime fluid_ = 0;                      // rank time of the others
  std::optional<Candidate> best_;
  PlanningTime best_score_ = 0;
  int64_t effort_ = 0;  // left
};

}  // namespace

absl::StatusOr<PlanOutline> SkylinePlanner::Decide(const PlanRequest& request,
                                                   const IntegerCostModel& cost) const {
  // The search sees ranks as positions on the line.
  const std::vector<int> line = SpeedOrder(cost, request.ranks, request.ranks_per_node);
  const auto makespan = [&](const PlanOutline& each) {
    return TimelineOf(each, request.lengths, cost).makespan;
  };
  const auto place_heads = [&](PlanOutline& outline) {
    PlaceHeads(outline, request.lengths, request.micro_batch_tokens, request.ranks_per_node, cost);
  };
  const auto plan = [&](const IntegerCostModel& search_cost) {
    PlanOutline outline = SkylineSearch(request, search_cost.Reordered(line)).Run();
    if (!cost.equal_speeds()) {
      Renumber(outline, line);
      place_heads(outline);
      return outline;
    }
    PlanOutline aligned = outline;
    AlignToNodes(aligned, request.ranks_per_node);
    if (cost.head_widths().size() == 1) return aligned;
    // Whatever keeps more rings inside nodes may also lay borders through blocks.
    place_heads(outline);
    place_heads(aligned);
    return makespan(outline) < makespan(aligned) ? outline : aligned;
  };
  PlanOutline outline = plan(cost);
  if (cost.head_widths().size() == 1 || cost.widest_heads()) return outline;
  // Borders of nodes may have left groups with all heads that were made wide to split them: where
  // it matters a plan for rings alone, with heads split where that helps, is made too.
  const PlanningTime bound =
      LowerBoundsOf(request.lengths, request.ranks, request.micro_batch_tokens, cost).greatest();
  const PlanningTime time = makespan(outline);
  if (time <= bound + bound / kHeadsGap) return outline;
  PlanOutline other = plan(cost.WithoutHeads());
  return makespan(other) < time ? other : outline;
}

}  // namespace longspan
