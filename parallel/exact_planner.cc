#include "parallel/exact_planner.h"

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "parallel/bytescale_planner.h"
#include "parallel/sorted_batch.h"

namespace longspan {
namespace {

using Mask = uint32_t;  // a set of places in the sorted batch
constexpr PlanningTime kNever = PlanningTime{1} << 126;
using Loads = std::array<PlanningTime, kMaxExactRanks>;

// The best way to let a ring's members take some whole sequences with them.
struct Company {
  PlanningTime duration = 0;
  std::vector<Mask> by_member;
};

// A micro-batch without a ring (width 1) or a ring.
struct Job {
  Mask ring = 0;  // sequences cut over the members
  int width = 1;
  Mask whole = 0;  // for a ring: over all members
  int last = 0;    // takes the ranks up to this one in the order of loads
};

class ExactSearch {
 public:
  ExactSearch(const PlanRequest& request, const IntegerCostModel& cost)
      : request_(request), cost_(cost), batch_(request), visited_(size_t{1} << batch_.size()) {
    const Mask all = Full();
    tokens_.assign(all + 1, 0);
    pairs_.assign(all + 1, 0);
    area_.assign(all + 1, 0);
    for (Mask set = 1; set <= all; ++set) {
      const int place = std::countr_zero(set);
      const Mask rest = set & (set - 1);
      const int64_t length = batch_.length(place);
      tokens_[set] = tokens_[rest] + length;
      pairs_[set] = pairs_[rest] + PairsOf(0, length, cost_.window());
      area_[set] = area_[rest] + cost.SequenceArea(length, batch_.minimum_width(place));
    }
    for (int64_t place = 0; place < batch_.size(); ++place) {
      fastest_.push_back(cost.micro_batch() + cost.BestSequence(batch_.length(place),
                                                                batch_.minimum_width(place),
                                                                request.ranks));
    }
  }

  // Plans of at least `incumbent` are not looked for. Jobs in order, if there is a better one.
  absl::StatusOr<std::optional<std::vector<Job>>> Run(PlanningTime incumbent) {
    best_ = incumbent;
    // Ranks that are not there are never free.
    Loads loads;
    for (int rank = 0; rank < kMaxExactRanks; ++rank) {
      loads[rank] = rank < request_.ranks ? 0 : kNever;
    }
    Search(Full(), loads);
    if (states_ > kMaxExactStates) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "exact planner: no end after ", kMaxExactStates, " states; try fewer sequences"));
    }
    return found_;
  }

  PlanOutline OutlineOf(const std::vector<Job>& jobs) {
    PlanOutline outline;
    outline.micro_batches.resize(request_.ranks);
    std::vector<std::pair<PlanningTime, int>> ranks;  // load, rank: by load
    for (int rank = 0; rank < request_.ranks; ++rank) ranks.push_back({0, rank});
    for (const Job& job : jobs) {
      const auto begin = ranks.begin() + (job.last - job.width + 1), end = begin + job.width;
      const PlanningTime start = (end - 1)->first;
      PlanningTime duration;
      if (job.ring == 0) {
        duration = PlainCost(job.whole);
        outline.micro_batches[begin->second].push_back({-1, SequencesOf(job.whole)});
      } else {
        const Company& company = CompaniesOf(job.ring, job.width).at(job.whole);
        duration = company.duration;
        PlanOutline::Ring ring;
        for (const int64_t sequence : SequencesOf(job.ring)) ring.sequences.push_back(sequence);
        for (auto it = begin; it != end; ++it) {
          outline.micro_batches[it->second].push_back(
              {static_cast<int64_t>(outline.rings.size()),
               SequencesOf(company.by_member[ring.ranks.size()])});
          ring.ranks.push_back(it->second);
        }
        outline.rings.push_back(std::move(ring));
      }
      for (auto it = begin; it != end; ++it) it->first = start + duration;
      std::sort(ranks.begin(), ranks.end());
    }
    return outline;
  }

 private:
  Mask Full() const { return (Mask{1} << batch_.size()) - 1; }
  Mask Shorts() const { return Full() & ~((Mask{1} << batch_.first_short()) - 1); }

  std::vector<int64_t> SequencesOf(Mask set) const {
    std::vector<int64_t> sequences;
    for (; set != 0; set &= set - 1) sequences.push_back(batch_.sequence(std::countr_zero(set)));
    return sequences;
  }

  PlanningTime PlainCost(Mask set) const {
    MicroBatchLoad load;
    load.tokens = tokens_[set];
    load.pairs = pairs_[set];
    return cost_.MicroBatch(load);
  }

  // By the whole sequences taken along, for all that have room. Members end together, so only the
  // largest cost counts.
  const std::map<Mask, Company>& CompaniesOf(Mask ring, int width) {
    const auto [entry, fresh] = companies_.try_emplace({ring, width});
    if (!fresh) return entry->second;
    for (const int heads : cost_.HeadWidths(width)) {
      for (const auto& [taken, company] : CompaniesOf(ring, width, heads)) {
        const auto [best, first] = entry->second.emplace(taken, company);
        if (!first && company.duration < best->second.duration) best->second = company;
      }
    }
    return entry->second;
  }

  // The same with heads split by `heads`.
  std::map<Mask, Company> CompaniesOf(Mask ring, int width, int heads) const {
    std::map<Mask, Company> companies = {{0, {}}};
    const Mask shorts = Shorts() & ~ring;
    for (int member = 0; member < width; ++member) {
      MicroBatchLoad share;
      share.members = width;
      share.head_parallel = heads;
      for (Mask set = ring; set != 0; set &= set - 1) {
        const MicroBatchLoad one =
            ShareLoad(batch_.length(std::countr_zero(set)), width, member, cost_.window());
        share.tokens += one.tokens;
        share.pairs += one.pairs;
        share.ring_pairs += one.ring_pairs;
        share.ring_tokens += one.ring_tokens;
      }
      std::map<Mask, Company> next;
      for (const auto& [taken, company] : companies) {
        const Mask left = shorts & ~taken;
        // All subsets of `left`, the empty one too.
        for (Mask own = left;; own = (own - 1) & left) {
          MicroBatchLoad load = share;
          load.tokens += tokens_[own];
          load.pairs += pairs_[own];
          if (load.tokens <= request_.micro_batch_tokens) {
            const PlanningTime duration = std::max(company.duration, cost_.MicroBatch(load));
            Company& best = next[taken | own];
            if (best.by_member.empty() || duration < best.duration) {
              best.duration = duration;
              best.by_member = company.by_member;
              best.by_member.push_back(own);
            }
          }
          if (own == 0) break;
        }
      }
      companies = std::move(next);
    }
    return companies;
  }

  PlanningTime Bound(Mask left, const Loads& loads) const {
    PlanningTime sum =
        area_[left] + cost_.micro_batch() * ((tokens_[left] + request_.micro_batch_tokens - 1) /
                                             request_.micro_batch_tokens);
    PlanningTime bound = 0;
    for (int rank = 0; rank < request_.ranks; ++rank) {
      sum += loads[rank];
      bound = std::max(bound, loads[rank]);
    }
    bound = std::max(bound, sum / request_.ranks);
    if (left != 0) bound = std::max(bound, loads[0] + fastest_[std::countr_zero(left)]);
    return bound;
  }

  // Whether a state that has been looked at is at least as good; else keeps this one.
  bool Seen(Mask left, const Loads& loads) {
    auto& seen = visited_[left];
    const auto covers = [&](const Loads& a, const Loads& b) {
      for (int rank = 0; rank < request_.ranks; ++rank) {
        if (a[rank] > b[rank]) return false;
      }
      return true;
    };
    for (const Loads& other : seen) {
      if (covers(other, loads)) return true;
    }
    std::erase_if(seen, [&](const Loads& other) { return covers(loads, other); });
    seen.push_back(loads);
    return false;
  }

  // `loads` ascending. A job takes neighbours in this order: instead of a rank with less load, one
  // with more (but no more than the last) can always serve, and leaves the better one free.
  void Search(Mask left, const Loads& loads) {
    if (++states_ > kMaxExactStates) return;
    if (left == 0) {
      if (loads[request_.ranks - 1] < best_) {
        best_ = loads[request_.ranks - 1];
        found_ = jobs_;
      }
      return;
    }
    if (Bound(left, loads) >= best_ || Seen(left, loads)) return;
    // Rings, the widest sets of sequences first.
    for (Mask ring = left; ring != 0; ring = (ring - 1) & left) {
      const int most = request_.ranks;
      int width =
          std::max<int>(2, static_cast<int>((tokens_[ring] - 1) / request_.micro_batch_tokens + 1));
      for (; width <= most; ++width) {
        for (const auto& [whole, company] : CompaniesOf(ring, width)) {
          if ((whole & ~left) != 0) continue;
          for (int last = width - 1; last < request_.ranks; ++last) {
            if (last + 1 < request_.ranks && loads[last + 1] == loads[last]) continue;
            Next(left & ~ring & ~whole, loads, {ring, width, whole, last}, company.duration);
          }
        }
      }
    }
    const Mask shorts = left & Shorts();
    for (Mask whole = shorts; whole != 0; whole = (whole - 1) & shorts) {
      if (tokens_[whole] > request_.micro_batch_tokens) continue;
      const PlanningTime duration = PlainCost(whole);
      for (int rank = 0; rank < request_.ranks; ++rank) {
        if (rank + 1 < request_.ranks && loads[rank + 1] == loads[rank]) continue;
        Next(left & ~whole, loads, {0, 1, whole, rank}, duration);
      }
    }
  }

  void Next(Mask left, const Loads& loads, const Job& job, PlanningTime duration) {
    const PlanningTime end = loads[job.last] + duration;
    if (end >= best_) return;
    Loads next = loads;
    std::fill(next.begin() + (job.last - job.width + 1), next.begin() + (job.last + 1), end);
    std::sort(next.begin(), next.end());
    jobs_.push_back(job);
    Search(left, next);
    jobs_.pop_back();
  }

  const PlanRequest& request_;
  const IntegerCostModel& cost_;
  const SortedBatch batch_;
  std::vector<int64_t> tokens_;              // by set
  std::vector<PairCount> pairs_;             // by set
  std::vector<PlanningTime> area_;           // by set
  std::vector<PlanningTime> fastest_;        // by place
  std::vector<std::vector<Loads>> visited_;  // by set that is left
  std::map<std::pair<Mask, int>, std::map<Mask, Company>> companies_;
  std::vector<Job> jobs_;
  std::optional<std::vector<Job>> found_;
  PlanningTime best_ = 0;
  int64_t states_ = 0;
};

}  // namespace

absl::StatusOr<PlanOutline> ExactPlanner::Decide(const PlanRequest& request,
                                                 const IntegerCostModel& cost) const {
  const int64_t sequences = static_cast<int64_t>(request.lengths.size());
  if (request.ranks > kMaxExactRanks || sequences > kMaxExactSequences) {
    return absl::InvalidArgumentError(absl::StrCat(
        "exact planner: ", request.ranks, " ranks and ", sequences, " sequences; it plans at most ",
        kMaxExactRanks, " ranks and ", kMaxExactSequences, " sequences"));
  }
  if (!cost.equal_speeds()) {
    return absl::InvalidArgumentError("exact planner: ranks of different speeds are not planned");
  }
  const absl::StatusOr<PlanOutline> first = BytescalePlanner().Outline(request);
  if (!first.ok()) return first;
  ExactSearch search(request, cost);
  const auto jobs = search.Run(TimelineOf(*first, request.lengths, cost).makespan);
  if (!jobs.ok()) return jobs.status();
  return jobs->has_value() ? search.OutlineOf(**jobs) : *first;
}

}  // namespace longspan
