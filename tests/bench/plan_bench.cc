// Planning: gap over the lower bound, time and memory, of every mix at 64 to 12,288 ranks, and of
// the policies side by side. One thread. Prints a table and, with --json, one object a row.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "launch/command_line.h"
#include "parallel/certificate.h"
#include "parallel/length_mix.h"
#include "parallel/planner.h"

namespace longspan {
namespace {

// ByteScale's case study, LLaMA-7B: see parallel/README.md.
const CostModel kCost = {8.0e-9, 1.055e-4, 2.23e-5, 1.92e-3, 8.0e-3, {}};

struct Row {
  std::string mix, policy;
  int ranks;
  int64_t capacity, tokens;
  int rounds;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double PeakMebibytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

int Run(const Row& row, uint64_t seed, bool json) {
  const absl::StatusOr<std::vector<int64_t>> lengths = DrawLengths({row.mix, row.tokens, 0, seed});
  if (!lengths.ok()) {
    std::cerr << lengths.status() << "\n";
    return 1;
  }
  const PlanRequest request{*lengths, row.ranks, row.capacity, kCost};
  const auto planner = CreatePlanner(row.policy);
  if (!planner.ok()) {
    std::cerr << planner.status() << "\n";
    return 1;
  }
  std::vector<double> seconds;
  absl::StatusOr<StepPlan> plan;
  for (int round = 0; round < row.rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    plan = (*planner)->Plan(request);
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    if (!plan.ok()) {
      std::cerr << plan.status() << "\n";
      return 1;
    }
  }
  if (const absl::Status valid = Validate(*plan); !valid.ok()) {
    std::cerr << valid << "\n";
    return 1;
  }
  const PlanCertificate& c = plan->certificate;
  const double peak = PeakMebibytes();
  if (json) {
    std::printf(
        "{\"mix\": \"%s\", \"policy\": \"%s\", \"ranks\": %d, \"micro_batch_tokens\": %ld, "
        "\"tokens\": %ld, \"sequences\": %zu, \"groups\": %zu, \"gap\": %.6f, \"binds\": \"%s\", "
        "\"plan_ms\": %.3f, \"peak_mib\": %.1f}\n",
        row.mix.c_str(), row.policy.c_str(), row.ranks, row.capacity, row.tokens, lengths->size(),
        plan->groups.size(), c.gap, BindingBound(c), 1e3 * Median(seconds), peak);
  } else {
    std::printf("%-10s %-10s %6d %7ld %6.1fM %8zu %7zu %8.2f%%  %-8s %9.2f ms %7.1f MiB\n",
                row.mix.c_str(), row.policy.c_str(), row.ranks, row.capacity,
                static_cast<double>(row.tokens) * 1e-6, lengths->size(), plan->groups.size(),
                100 * c.gap, BindingBound(c), 1e3 * Median(seconds), peak);
  }
  std::fflush(stdout);
  return 0;
}

int Main(int argc, char** argv) {
  CommandLine app("Gap, time and memory of planning.", "plan_bench");
  app.Footer(
      "Example:\n  plan_bench                 all mixes and policies\n"
      "  plan_bench --ranks 12288 --mix byted --policy skyline --rounds 15");
  std::string only_mix, only_policy;
  int only_ranks = 0, rounds = 7;
  uint64_t seed = 1;
  bool json = false;
  app.AddOption("--mix", only_mix, "only this mix");
  app.AddOption("--policy", only_policy, "only this policy: skyline, bytescale, naive or static");
  app.AddOption("--ranks", only_ranks, "only this many ranks");
  app.AddOption("--rounds", rounds, "plans made of each row; the time is their median");
  app.AddOption("--seed", seed, "of the lengths");
  app.AddFlag("--json", json, "one object a line");
  if (const std::optional<int> ended = app.Parse(argc, argv)) return *ended;
  if (!json) {
    std::printf("%-10s %-10s %6s %7s %7s %8s %7s %9s  %-8s %12s %11s\n", "mix", "policy", "ranks",
                "C", "tokens", "seqs", "groups", "gap", "binds", "median plan", "peak");
  }
  for (const std::string& mix : LengthMixes()) {
    if (!only_mix.empty() && mix != only_mix) continue;
    for (const int ranks : {64, 256, 1024, 4096, 12288}) {
      if (only_ranks != 0 && ranks != only_ranks) continue;
      // The longest sequence (2M) needs at most half of the ranks.
      const int64_t capacity = std::max<int64_t>(8192, (int64_t{2} << 20) / (ranks / 2));
      const int64_t tokens = std::min<int64_t>(400'000'000, 4 * capacity * ranks);
      for (const std::string policy : {"skyline", "bytescale", "naive", "static"}) {
        if (!only_policy.empty() && policy != only_policy) continue;
        // A wide mesh cuts every short document into as many slices: only its small plans fit here.
        if (policy == "static" && ranks > 1024 && mix != "equal") continue;
        if (const int failed = Run({mix, policy, ranks, capacity, tokens, rounds}, seed, json)) {
          return failed;
        }
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) { return longspan::Main(argc, argv); }
