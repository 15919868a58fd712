// CheckpointReader: the tensors of one checkpoint, for a command, from wherever its files are: the
// checkpoint directory, tiers of the nodes that the command runs on, computed from parity; as a run
// that resumes reads them (checkpoint/tiers.h).
#ifndef LONGSPAN_LAUNCH_CHECKPOINT_READER_H_
#define LONGSPAN_LAUNCH_CHECKPOINT_READER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/tiers.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Whether a step directory is one of a tier: nobody claims generations where it lies.
bool InTier(const std::string& step_directory);

// For one thread of each rank.
class CheckpointReader {
 public:
  // `path` is a run's folder: its newest step, wherever it is; or a step directory: that one alone,
  // with what the same directory of other nodes has where it is a tier's. Collective; fails alike
  // on all ranks. NotFound if there is none; DataLoss if its files cannot all be had: an older step
  // is not taken instead. `transport` outlives the reader.
  static absl::StatusOr<std::unique_ptr<CheckpointReader>> Open(const std::string& path,
                                                                Transport& transport);

  const CheckpointInfo& info() const { return restore_->info(); }
  std::vector<CheckpointTensor> tensors() const { return restore_->tensors(); }
  // Where the run's tokenizer is, if it has one.
  const std::string& tokenizer() const { return tokenizer_; }
  // Fills `regions`; errors as of RestoreRegions. On rank 0, within LeadReads alone. What had to be
  // computed, or taken from elsewhere because it is damaged, is said on standard error, once.
  absl::Status Read(const std::vector<StateRegion>& regions);

 private:
  friend absl::Status LeadReads(const std::vector<CheckpointReader*>&, Transport&,
                                const std::function<absl::Status()>&);
  CheckpointReader(FoundCheckpoint found, std::vector<int> nodes, std::string tokenizer,
                   Transport& transport);

  const FoundCheckpoint found_;
  const std::vector<int> nodes_;
  const std::string tokenizer_;
  Transport& transport_;
  std::unique_ptr<TieredRestore> restore_;
  size_t number_ = 0;  // among the readers of LeadReads
  std::set<std::string> said_;
};

// Collective: rank 0 runs `lead`, which may call Read of `readers`; the other ranks, which give the
// same readers, read for it what is on their nodes. What `lead` returned, on all ranks.
absl::Status LeadReads(const std::vector<CheckpointReader*>& readers, Transport& transport,
                       const std::function<absl::Status()>& lead);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_CHECKPOINT_READER_H_
