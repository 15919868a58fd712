// RunScenario: plays a scenario with one seed and checks what must hold after every attempt,
// whatever went wrong.
#ifndef LONGSPAN_TESTS_FAULTS_SCENARIO_RUN_H_
#define LONGSPAN_TESTS_FAULTS_SCENARIO_RUN_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "scenario.h"

namespace longspan {

// Over all seeds of a scenario.
struct ScenarioTally {
  std::map<std::string, int64_t> probes;    // rare paths, by what happened there
  std::map<std::string, int64_t> ends;      // of saves, by end
  std::map<std::string, int64_t> injected;  // by fault of the file
  int64_t attempts = 0;
};

// Every probe that a scenario may ask for.
const std::vector<std::string>& KnownProbes();

// "" or what does not hold:
//  - the newest committed step, and every other one, reads back whole on one rank and on as many as
//    there are, and is what the state was at that step;
//  - it is not older than the last one whose commit any rank was told of, nor than what there was;
//  - ranks agree: where one was told of a commit, none was told of a failure;
//  - a save that failed on all ranks, by one fault, is not committed;
//  - saves end as the file permits, and attempts without faults commit all of theirs;
//  - the last attempt leaves no step behind that is not committed.
// `directory`: for scenarios on the real disk.
std::string RunScenario(const Scenario& scenario, uint64_t seed, const std::string& directory,
                        ScenarioTally& tally);

}  // namespace longspan

#endif  // LONGSPAN_TESTS_FAULTS_SCENARIO_RUN_H_
