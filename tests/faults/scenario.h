// Scenario: what a file of tests/faults/scenarios says. A run of several attempts, what goes wrong
// in each, and what may come of it. README.md lists the words.
#ifndef LONGSPAN_TESTS_FAULTS_SCENARIO_H_
#define LONGSPAN_TESTS_FAULTS_SCENARIO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint_scenario.h"

namespace longspan {

// A number, or one drawn for each seed.
struct Drawn {
  int64_t low = 0, high = 0;
};

struct FaultDescription {
  std::string at;      // pattern over "operation name": "write rank-*.h5", "send outcome"
  std::string in;      // "memory": in tiers of that name alone; "checkpoints"; empty: everywhere
  Drawn rank{-1, -1};  // -1: whichever comes first
  Drawn nth{1, 1};     // of the operations that match, from 1
  int64_t times = 1;   // so many of them in a row; 0: all from then on
  std::string what;
  Drawn milliseconds{0, 0};
};

// Before an attempt, to a file of the newest checkpoint.
struct DamageDescription {
  std::string in = "checkpoints";  // or a tier, on `node`
  Drawn node{0, 0};
  std::string file;  // pattern
  std::string what;  // "bit flip", "truncate", "remove"; "lose node", with all that it has
};

struct TierDescription {
  std::string name;
  int64_t every = 1, keep_last = 1;
  bool partner = false;
  std::string erasure;  // "2+1"; empty: none
};

struct AttemptDescription {
  Drawn ranks{1, 1};
  Drawn nodes{1, 1};  // that the ranks are on, in order, as many on each
  int64_t saves = 1;
  int64_t every = 1;  // of them, those that go to the checkpoint directory too; 0: none
  std::vector<TierDescription> tiers;
  SaveMode mode = SaveMode::kLazy;
  int64_t keep_last = 2;
  int64_t in_flight = 2;
  int64_t vote_timeout_ms = 60'000;
  int64_t pool_mib = 0;          // of lazy saves; 0: enough
  int64_t message_delay_ms = 0;  // every tagged message comes late by up to this
  std::vector<FaultDescription> faults;
  std::vector<DamageDescription> damages;
  std::vector<std::string> permitted = {"committed"};  // ends of saves; see EndOf
  bool may_not_start = false;
  bool loses = false;  // the newest step is gone after the damage, an older one is resumed from
};

struct Scenario {
  std::string name, about;
  bool real_disk = false;
  int64_t scale = 1;  // of the state
  int64_t seeds = 1;
  std::vector<AttemptDescription> attempts;
  std::vector<std::string> probes;  // that some seed must hit
};

// InvalidArgument, with the place, for anything that is not understood.
absl::StatusOr<Scenario> ReadScenario(const std::string& path);

}  // namespace longspan

#endif  // LONGSPAN_TESTS_FAULTS_SCENARIO_H_
