#include "parallel/certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "parallel/planner.h"
#include "test_plans.h"

namespace longspan {
namespace {

const CostModel kExample = {8.0e-9, 1.055e-4, 2.23e-5, 1.92e-3, 8.0e-3, {}};

// The formula of the public format, in floating point.
double MicroBatchSeconds(const StepPlan& plan, const MicroBatch& micro_batch,
                         const CostModel& cost) {
  double x = 0, p = 0, p_ring = 0, s = 0, d = 1, h = 1;
  for (const SequenceSlice& slice : micro_batch.slices) {
    for (const TokenRange& range : slice.ranges) {
      for (int64_t query = range.begin; query < range.end; ++query) {
        const double pairs = static_cast<double>(query + 1);
        x += 1;
        p += pairs;
        if (slice.group >= 0) p_ring += pairs;
      }
    }
    if (slice.group >= 0) {
      s += static_cast<double>(plan.lengths[slice.sequence]);
      d = static_cast<double>(plan.groups[slice.group].ranks.size());
      h = plan.groups[slice.group].head_parallel;
    }
  }
  const double m = d / h;
  const double ring = std::max(
      cost.attention_seconds_per_pair * p_ring,
      cost.ring_seconds_per_token * s * (m - 1) / d + cost.attention_seconds_per_pair * p_ring / m);
  // q, k, v, O and back again: the values of 5 queries and 6 keys, for the 6 of a ring.
  const double exchange =
      cost.ring_seconds_per_token * (6 + 5 * cost.heads.queries_per_kv) / 6 * s / d * (h - 1) / h;
  return cost.micro_batch_seconds + cost.linear_seconds_per_token * x +
         std::max(cost.attention_seconds_per_pair * p, exchange + ring) +
         cost.ring_step_seconds * (m - 1 + (h > 1 ? 2 : 0));
}

// Starts every micro-batch at 0 and moves starts back until they obey the lists and the rings.
double MakespanByRelaxation(const StepPlan& plan, const CostModel& cost) {
  struct Work {
    double start = 0, duration = 0;
    std::vector<Work*> ring;
  };
  std::vector<std::vector<Work>> lists(plan.ranks);
  std::map<int64_t, std::vector<Work*>> rings;
  for (int rank = 0; rank < plan.ranks; ++rank) {
    lists[rank].resize(plan.micro_batches[rank].size());
    for (size_t i = 0; i < lists[rank].size(); ++i) {
      const MicroBatch& micro_batch = plan.micro_batches[rank][i];
      lists[rank][i].duration = MicroBatchSeconds(plan, micro_batch, cost);
      for (const SequenceSlice& slice : micro_batch.slices) {
        if (slice.group >= 0) rings[slice.group].push_back(&lists[rank][i]);
      }
    }
  }
  for (auto& [group, members] : rings) {
    double duration = 0;
    for (const Work* member : members) duration = std::max(duration, member->duration);
    for (Work* member : members) member->duration = duration;
  }
  for (bool moved = true; moved;) {
    moved = false;
    const auto move_to = [&moved](Work& work, double start) {
      if (work.start >= start) return;
      work.start = start;
      moved = true;
    };
    for (std::vector<Work>& list : lists) {
      for (size_t i = 1; i < list.size(); ++i) {
        move_to(list[i], list[i - 1].start + list[i - 1].duration);
      }
    }
    for (auto& [group, members] : rings) {
      for (Work* a : members) {
        for (Work* b : members) move_to(*b, a->start);
      }
    }
  }
  double makespan = 0;
  for (const std::vector<Work>& list : lists) {
    if (!list.empty()) makespan = std::max(makespan, list.back().start + list.back().duration);
  }
  return makespan;
}

TEST(CertificateTest, MakespanMatchesAnIndependentEvaluation) {
  const auto planner = CreatePlanner("skyline");
  ASSERT_TRUE(planner.ok());
  Random random(1);
  int split = 0;
  for (int trial = 0; trial < 120; ++trial) {
    PlanRequest request;
    request.ranks = static_cast<int>(random.Between(1, 12));
    request.micro_batch_tokens = 2 * random.Between(1, 400);
    request.cost = kExample;
    if (trial % 2 == 1) {
      request.cost.heads = {.kv_heads = 8, .queries_per_kv = 4, .most = 8};
      request.cost.heads.widest = trial % 4 == 1;
    }
    const int64_t sequences = random.Between(1, 60);
    for (int64_t i = 0; i < sequences; ++i) {
      request.lengths.push_back(random.LongTailed(request.ranks * request.micro_batch_tokens));
    }
    const absl::StatusOr<StepPlan> plan = (*planner)->Plan(request);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const double expected = MakespanByRelaxation(*plan, request.cost);
    EXPECT_NEAR(plan->certificate.makespan_seconds, expected, 1e-11 * expected);
    for (const SequenceGroup& group : plan->groups) split += group.head_parallel > 1;
  }
  EXPECT_GE(split, 50);
}

TEST(CertificateTest, RingsStartAndEndTogether) {
  const StepPlan plan = TwoRingPlan();
  ASSERT_TRUE(Validate(plan).ok());
  const absl::StatusOr<PlanCertificate> certificate = Certify(plan, kExample);
  ASSERT_TRUE(certificate.ok()) << certificate.status();
  EXPECT_NEAR(certificate->makespan_seconds, MakespanByRelaxation(plan, kExample), 1e-12);
}

TEST(CertificateTest, BoundsFollowTheirDefinitions) {
  StepPlan plan;
  plan.ranks = 3;
  plan.micro_batch_tokens = 8192;
  plan.lengths = {512, 17000, 300, 9000};
  plan.micro_batches.resize(3);
  const absl::StatusOr<PlanCertificate> certificate = Certify(plan, kExample);
  ASSERT_TRUE(certificate.ok()) << certificate.status();
  const auto area = [](double s, double d0) {
    return kExample.linear_seconds_per_token * s +
           kExample.attention_seconds_per_pair * s * (s + 1) / 2 +
           kExample.ring_step_seconds * d0 * (d0 - 1);
  };
  EXPECT_NEAR(certificate->area_seconds,
              (area(512, 1) + area(17000, 3) + area(300, 1) + area(9000, 2) +
               kExample.micro_batch_seconds * 4) /
                  3,
              1e-12);
  const double longest = kExample.SequenceSeconds(17000, 3);
  EXPECT_NEAR(certificate->longest_seconds, longest + kExample.micro_batch_seconds, 1e-12);
  const double nine =
      std::min(kExample.SequenceSeconds(9000, 2), kExample.SequenceSeconds(9000, 3));
  EXPECT_NEAR(certificate->wide_seconds, longest + nine, 1e-12);
  EXPECT_EQ(certificate->lower_bound_seconds,
            std::max({certificate->area_seconds, certificate->longest_seconds,
                      certificate->wide_seconds}));
}

TEST(CertificateTest, TheLongestMayBeFasterOnMoreRanksThanItNeeds) {
  StepPlan plan;
  plan.ranks = 64;
  plan.micro_batch_tokens = 65536;
  plan.lengths = {65536};
  plan.micro_batches.resize(64);
  const absl::StatusOr<PlanCertificate> certificate = Certify(plan, kExample);
  ASSERT_TRUE(certificate.ok()) << certificate.status();
  double best = kExample.SequenceSeconds(65536, 1);
  for (int d = 2; d <= 64; ++d) best = std::min(best, kExample.SequenceSeconds(65536, d));
  EXPECT_LT(best, kExample.SequenceSeconds(65536, 1) / 2);
  EXPECT_NEAR(certificate->longest_seconds, best + kExample.micro_batch_seconds, 1e-12);
}

TEST(CertificateTest, RefusesCoefficientsOutOfRange) {
  for (const double bad : {-1e-9, std::nan(""), 1e3, HUGE_VAL}) {
    CostModel cost = kExample;
    cost.ring_step_seconds = bad;
    const absl::StatusOr<PlanCertificate> certificate = Certify(TwoRingPlan(), cost);
    EXPECT_EQ(certificate.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(certificate.status().message()),
                ::testing::HasSubstr("ring_step_seconds"));
  }
}

}  // namespace
}  // namespace longspan
