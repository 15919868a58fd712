// PartnerCopies: the file of every rank goes, piece by piece as it is written, to a rank of another
// node too, which keeps it in its own node's step directory.
#ifndef LONGSPAN_CHECKPOINT_PARTNER_COPIES_H_
#define LONGSPAN_CHECKPOINT_PARTNER_COPIES_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "checkpoint/file_system.h"
#include "checkpoint/partners.h"
#include "parallel/transport/transport.h"

namespace longspan {

// For every rank the one that keeps its file: the rank of the same place on the next node. -1 for
// all if there is one node only.
std::vector<int> PartnersOf(const std::vector<int>& nodes);

class PartnerCopies : public Partners {
 public:
  PartnerCopies(FileSystem& files, Transport& transport, const std::vector<int>& partners,
                absl::Duration timeout, const std::atomic<bool>& stop);

  void Expect(const SavedStep& step, const absl::Status& mine) override;
  absl::Status Send(const SavedStep& step, int64_t piece, const char* data, int64_t bytes,
                    int64_t file_bytes) override;
  absl::Status EndFile(const SavedStep& step, const absl::Status& mine) override;
  absl::Status Await(const SavedStep& step) override { return keeping_.Await(step); }

 private:
  absl::Status Keep(const SavedStep& step, const absl::Status& mine);
  absl::Status Take(const SavedStep& step, int source);
  absl::Status TakePieces(const SavedStep& step, int source, bool& told);
  absl::Status AwaitAnswer(const SavedStep& step);

  FileSystem& files_;
  Transport& transport_;
  const int partner_;               // -1: none
  const std::vector<int> sources_;  // ranks whose files are kept here
  const absl::Duration timeout_;
  const std::atomic<bool>& stop_;

  // Of the step that is sent.
  int64_t sent_ = 0, answered_ = 0;
  bool refused_ = false;

  KeepingThread keeping_;  // the last: its thread uses the rest
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_PARTNER_COPIES_H_
