// ParityPartners: the file of every rank goes, symbol by symbol as it is written, to the ranks of
// its group that keep parity of it (erasure_groups.h). These add it up, write the sum and forget
// the rest.
#ifndef LONGSPAN_CHECKPOINT_PARITY_PARTNERS_H_
#define LONGSPAN_CHECKPOINT_PARITY_PARTNERS_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "checkpoint/erasure_groups.h"
#include "checkpoint/file_system.h"
#include "checkpoint/parity_file.h"
#include "checkpoint/partners.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Memory, at most: a symbol on the sending side; on the keeping side the parity symbols of a cycle;
// and, on their way, kSymbolsAhead symbols of every rank for each of its keepers.
class ParityPartners : public Partners {
 public:
  ParityPartners(FileSystem& files, Transport& transport, std::string run_id,
                 std::vector<ErasureGroup> groups, absl::Duration timeout,
                 const std::atomic<bool>& stop);

  void Expect(const SavedStep& step, const absl::Status& mine) override;
  absl::Status Send(const SavedStep& step, int64_t piece, const char* data, int64_t bytes,
                    int64_t file_bytes) override;
  absl::Status EndFile(const SavedStep& step, const absl::Status& mine) override;
  absl::Status Await(const SavedStep& step) override { return keeping_.Await(step); }

 private:
  // A place of this rank in a group.
  struct Place {
    int group = 0, member = 0;
  };
  int KeeperRank(int d, int p) const;
  absl::Status SendSymbol(const SavedStep& step);
  absl::Status AwaitAnswer(const SavedStep& step);

  absl::Status Keep(const SavedStep& step, const absl::Status& mine);
  absl::Status KeepOne(const SavedStep& step, const Place& place);
  absl::Status AddUp(const SavedStep& step, const Place& place, ParityFileWriter& file,
                     std::set<int>& ended);
  void Refuse(const SavedStep& step, const Place& place, const std::string& why,
              const std::set<int>& ended);

  FileSystem& files_;
  Transport& transport_;
  const std::string run_id_;
  const std::vector<ErasureGroup> groups_;
  const absl::Duration timeout_;
  const std::atomic<bool>& stop_;
  Place own_;                 // where this rank's file is
  std::vector<Place> keeps_;  // whose parity it keeps

  // Of the step that is sent.
  std::string symbol_;          // bytes of the symbol that is not complete
  int64_t next_ = 0;            // its number
  std::deque<int> unanswered_;  // ranks, in the order in which it was sent to them
  std::set<int> refused_;       // ranks

  KeepingThread keeping_;  // the last: its thread uses the rest
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_PARITY_PARTNERS_H_
