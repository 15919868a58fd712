// Validate: the proof that a plan may be dispatched.
#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "parallel/integer_cost.h"
#include "parallel/plan.h"

namespace longspan {
namespace {

std::string Text(const TokenRanges& ranges) {
  return absl::StrCat("[",
                      absl::StrJoin(ranges, ", ",
                                    [](std::string* out, const TokenRange& range) {
                                      absl::StrAppend(out, "[", range.begin, ", ", range.end, "]");
                                    }),
                      "]");
}

class Validator {
 public:
  explicit Validator(const StepPlan& plan) : plan_(plan) {}

  absl::Status Run() {
    if (absl::Status status = CheckHeader(); !status.ok()) return status;
    if (absl::Status status = CheckGroups(); !status.ok()) return status;
    ring_of_group_.assign(plan_.groups.size(), -1);
    holder_.assign(plan_.lengths.size(), -1);
    for (int rank = 0; rank < plan_.ranks; ++rank) {
      int64_t last_ring = -1;
      for (size_t i = 0; i < plan_.micro_batches[rank].size(); ++i) {
        if (absl::Status status = CheckMicroBatch(rank, i, last_ring); !status.ok()) return status;
      }
    }
    return CheckComplete();
  }

 private:
  // Rank r's part in the groups, by increasing group.
  struct Membership {
    int64_t group;
    int member;
    bool held = false;
  };

  template <typename... Parts>
  static absl::Status Broken(const Parts&... parts) {
    return absl::InvalidArgumentError(absl::StrCat("plan: ", parts...));
  }

  absl::Status CheckHeader() const {
    if (plan_.ranks < 1) return Broken(plan_.ranks, " ranks; at least one is needed");
    if (plan_.micro_batch_tokens < 2 || plan_.micro_batch_tokens % 2 != 0) {
      return Broken("micro_batch_tokens is ", plan_.micro_batch_tokens,
                    "; it must be even and at least 2");
    }
    if (plan_.micro_batches.size() != static_cast<size_t>(plan_.ranks)) {
      return Broken("micro-batch lists for ", plan_.micro_batches.size(), " ranks, but ",
                    plan_.ranks, " ranks");
    }
    int64_t tokens = 0;
    for (size_t i = 0; i < plan_.lengths.size(); ++i) {
      if (plan_.lengths[i] < 1) {
        return Broken("sequence ", i, " has length ", plan_.lengths[i], "; it must be positive");
      }
      if (plan_.lengths[i] > kMaxBatchTokens - tokens) {
        return Broken("sequences up to ", i, " have more than ", kMaxBatchTokens,
                      " tokens together, the most of one step");
      }
      tokens += plan_.lengths[i];
    }
    return absl::OkStatus();
  }

  absl::Status CheckGroups() {
    group_of_.assign(plan_.lengths.size(), -1);
    memberships_.resize(plan_.ranks);
    std::map<std::pair<std::vector<int>, int>, int> rank_lists;
    std::vector<int64_t> seen_in(plan_.ranks, -1);
    for (size_t i = 0; i < plan_.groups.size(); ++i) {
      const SequenceGroup& group = plan_.groups[i];
      const int64_t g = static_cast<int64_t>(i);
      if (!IsSequence(group.sequence)) {
        return Broken("group ", g, " is for sequence ", group.sequence, ", but there are ",
                      plan_.lengths.size());
      }
      if (group_of_[group.sequence] >= 0) {
        return Broken("sequence ", group.sequence, " has two groups, ", group_of_[group.sequence],
                      " and ", g);
      }
      group_of_[group.sequence] = g;
      if (group.ranks.size() < 2) {
        return Broken("group ", g, " of sequence ", group.sequence, " has ", group.ranks.size(),
                      " ranks; a group has at least two, others are whole sequences");
      }
      for (size_t member = 0; member < group.ranks.size(); ++member) {
        const int rank = group.ranks[member];
        if (rank < 0 || rank >= plan_.ranks) {
          return Broken("group ", g, " of sequence ", group.sequence, " has rank ", rank,
                        " of a job of ", plan_.ranks);
        }
        if (seen_in[rank] == g) {
          return Broken("group ", g, " of sequence ", group.sequence, " has rank ", rank, " twice");
        }
        seen_in[rank] = g;
        memberships_[rank].push_back({g, static_cast<int>(member)});
      }
      if (group.head_parallel < 1 ||
          group.ranks.size() % static_cast<size_t>(group.head_parallel) != 0) {
        return Broken("group ", g, " of sequence ", group.sequence, " has ", group.ranks.size(),
                      " ranks and head_parallel = ", group.head_parallel,
                      "; it must be positive and divide the number of ranks");
      }
      rank_list_.push_back(rank_lists
                               .emplace(std::pair(group.ranks, group.head_parallel),
                                        static_cast<int>(rank_lists.size()))
                               .first->second);
    }
    return absl::OkStatus();
  }

  absl::Status CheckMicroBatch(int rank, size_t index, int64_t& last_ring) {
    const MicroBatch& micro_batch = plan_.micro_batches[rank][index];
    const std::string place = absl::StrCat("rank ", rank, ", micro-batch ", index);
    if (micro_batch.slices.empty()) return Broken(place, " is empty");
    std::vector<int64_t> groups;
    for (const SequenceSlice& slice : micro_batch.slices) {
      absl::Status status =
          slice.group < 0 ? CheckWhole(rank, place, slice) : CheckShare(rank, place, slice);
      if (!status.ok()) return status;
      if (slice.group >= 0) groups.push_back(slice.group);
    }
    // Every range has been checked against its sequence by now, so the sum is of true sizes.
    if (micro_batch.tokens() > plan_.micro_batch_tokens) {
      return Broken(place, " holds ", micro_batch.tokens(),
                    " tokens, the last of them of sequence ", micro_batch.slices.back().sequence,
                    "; micro_batch_tokens is ", plan_.micro_batch_tokens);
    }
    return groups.empty() ? absl::OkStatus() : CheckRing(place, groups, last_ring);
  }

  absl::Status CheckWhole(int rank, const std::string& place, const SequenceSlice& slice) {
    if (!IsSequence(slice.sequence)) {
      return Broken(place, " names sequence ", slice.sequence, ", but there are ",
                    plan_.lengths.size());
    }
    if (group_of_[slice.sequence] >= 0) {
      return Broken(place, " holds sequence ", slice.sequence, " as a whole, but it has group ",
                    group_of_[slice.sequence]);
    }
    if (holder_[slice.sequence] >= 0) {
      return Broken(place, " holds sequence ", slice.sequence, ", which rank ",
                    holder_[slice.sequence], " holds already");
    }
    holder_[slice.sequence] = rank;
    const TokenRanges expected = {{0, plan_.lengths[slice.sequence]}};
    if (slice.ranges != expected) {
      return Broken(place, ", sequence ", slice.sequence, ": ranges are ", Text(slice.ranges),
                    ", a whole sequence has ", Text(expected));
    }
    return absl::OkStatus();
  }

  absl::Status CheckShare(int rank, const std::string& place, const SequenceSlice& slice) {
    if (slice.group >= static_cast<int64_t>(plan_.groups.size())) {
      return Broken(place, ", sequence ", slice.sequence, " names group ", slice.group,
                    ", but there are ", plan_.groups.size());
    }
    const SequenceGroup& group = plan_.groups[slice.group];
    if (group.sequence != slice.sequence) {
      return Broken(place, " holds sequence ", slice.sequence, " in group ", slice.group,
                    ", which is for sequence ", group.sequence);
    }
    std::vector<Membership>& memberships = memberships_[rank];
    const auto membership =
        std::lower_bound(memberships.begin(), memberships.end(), slice.group,
                         [](const Membership& a, int64_t g) { return a.group < g; });
    if (membership == memberships.end() || membership->group != slice.group) {
      return Broken(place, " holds sequence ", slice.sequence, " in group ", slice.group,
                    ", which rank ", rank, " is no member of");
    }
    if (membership->held) {
      return Broken(place, " holds sequence ", slice.sequence, " a second time on rank ", rank);
    }
    membership->held = true;
    const TokenRanges expected = ZigzagSliceRanges(
        plan_.lengths[slice.sequence], static_cast<int>(group.ranks.size()), membership->member);
    if (slice.ranges != expected) {
      return Broken(place, ", sequence ", slice.sequence, ": ranges are ", Text(slice.ranges),
                    ", member ", membership->member, " of ", group.ranks.size(), " has ",
                    Text(expected));
    }
    return absl::OkStatus();
  }

  // `groups`, of one micro-batch in order, must be a ring: one rank list, split alike into blocks
  // that share heads, and the same groups on every member. With the rings in increasing number on
  // every rank, the lowest unfinished ring always finds all its ranks free: each of them has only
  // micro-batches without a ring, or lower and so finished rings, before it. So the lists cannot
  // deadlock.
  absl::Status CheckRing(const std::string& place, const std::vector<int64_t>& groups,
                         int64_t& last_ring) {
    const int64_t first = groups.front();
    for (const int64_t group : groups) {
      if (rank_list_[group] != rank_list_[first]) {
        return Broken(place, " holds slices of sequences ", plan_.groups[first].sequence, " and ",
                      plan_.groups[group].sequence, " of groups ", first, " and ", group,
                      " with different rank lists or head_parallel; the groups of a micro-batch "
                      "are one ring");
      }
      if (ring_of_group_[group] != ring_of_group_[first]) return BrokenRing(place, groups, group);
    }
    int64_t& ring = ring_of_group_[first];
    if (ring < 0) {
      for (const int64_t group : groups) {
        ring_of_group_[group] = static_cast<int64_t>(rings_.size());
      }
      rings_.push_back(groups);
    } else if (rings_[ring] != groups) {
      return BrokenRing(place, groups, first);
    }
    const int64_t number = *std::min_element(groups.begin(), groups.end());
    if (number <= last_ring) {
      return Broken(place, ", sequence ", plan_.groups[number].sequence, ": the ring of group ",
                    number, " comes after that of group ", last_ring,
                    "; every rank meets its rings in increasing number");
    }
    last_ring = number;
    return absl::OkStatus();
  }

  absl::Status BrokenRing(const std::string& place, const std::vector<int64_t>& groups,
                          int64_t group) const {
    const int64_t ring = std::max(ring_of_group_[group], ring_of_group_[groups.front()]);
    return Broken(place, ", sequence ", plan_.groups[group].sequence, ": groups ",
                  absl::StrJoin(groups, ", "), " are together here, but another rank has groups ",
                  absl::StrJoin(rings_[ring], ", "), " together; a ring has the same on all ranks");
  }

  absl::Status CheckComplete() const {
    for (size_t i = 0; i < plan_.lengths.size(); ++i) {
      if (group_of_[i] < 0 && holder_[i] < 0) {
        return Broken("sequence ", i, " of ", plan_.lengths[i], " tokens is on no rank");
      }
    }
    for (int rank = 0; rank < plan_.ranks; ++rank) {
      for (const Membership& membership : memberships_[rank]) {
        if (!membership.held) {
          return Broken("rank ", rank, " holds no slice of sequence ",
                        plan_.groups[membership.group].sequence, ", but is a member of its group ",
                        membership.group);
        }
      }
    }
    return absl::OkStatus();
  }

  bool IsSequence(int64_t sequence) const {
    return sequence >= 0 && sequence < static_cast<int64_t>(plan_.lengths.size());
  }

  const StepPlan& plan_;
  std::vector<int64_t> group_of_;                     // by sequence, -1: none
  std::vector<int> holder_;                           // by whole sequence: the rank, -1: none yet
  std::vector<std::vector<Membership>> memberships_;  // by rank
  std::vector<int>
      rank_list_;  // by group: equal for equal ordered rank lists with equal head_parallel
  std::vector<int64_t> ring_of_group_;       // by group: index into rings_, -1: none yet
  std::vector<std::vector<int64_t>> rings_;  // the groups of each ring, in order
};

}  // namespace

absl::Status Validate(const StepPlan& plan) { return Validator(plan).Run(); }

}  // namespace longspan
