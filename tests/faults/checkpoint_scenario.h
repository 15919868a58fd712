// What the fault tests share: saving and loading a small sharded state on a simulated disk.
#ifndef LONGSPAN_TESTS_FAULTS_CHECKPOINT_SCENARIO_H_
#define LONGSPAN_TESTS_FAULTS_CHECKPOINT_SCENARIO_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "checkpoint/checkpoint.h"
#include "simulated_disk.h"

namespace longspan {

inline constexpr char kCheckpoints[] = "/run/checkpoints";

struct SaveOutcome {
  std::vector<absl::Status> status;                // by rank
  std::vector<std::vector<std::string>> warnings;  // by rank, of saves that were committed
};

// kLazy overlaps saves where nothing is to be called between them.
enum class SaveMode { kSynchronous, kLazy };

// One attempt of a run: `ranks` ranks open a writer, then save `step` once for each entry of
// `before_save`, which rank 0 calls first (null: nothing to call). Returns the outcome of each
// save; fails the test if opening fails.
std::vector<SaveOutcome> RunAttempt(SimulatedDisk& disk, int ranks, int keep_last,
                                    const std::vector<int64_t>& steps,
                                    const std::function<void(size_t save)>& before_save = nullptr,
                                    const std::function<void(size_t save)>& after_save = nullptr,
                                    SaveMode mode = SaveMode::kSynchronous);

// The step of the newest checkpoint, read back whole: verified, and every byte of every tensor
// compared with what it was at that step. -1 if there is none; `problem` says what is wrong with
// one that should load but does not.
int64_t LoadNewest(SimulatedDisk& disk, std::string& problem);

}  // namespace longspan

#endif  // LONGSPAN_TESTS_FAULTS_CHECKPOINT_SCENARIO_H_
