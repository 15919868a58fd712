// PartnerCopies: the file of every rank goes, piece by piece as it is written, to a rank of another
// node too, which keeps it in its own node's step directory.
#ifndef LONGSPAN_CHECKPOINT_PARTNER_COPIES_H_
#define LONGSPAN_CHECKPOINT_PARTNER_COPIES_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "checkpoint/file_system.h"
#include "checkpoint/step_protocol.h"
#include "parallel/transport/transport.h"

namespace longspan {

// For every rank the one that keeps its file: the rank of the same place on the next node. -1 for
// all if there is one node only.
std::vector<int> PartnersOf(const std::vector<int>& nodes);

// Send and EndFile on one thread, Expect before them on the same, Await on another. Every step gets
// Expect, EndFile and Await, in the order of steps.
class PartnerCopies {
 public:
  PartnerCopies(FileSystem& files, Transport& transport, const std::vector<int>& partners,
                absl::Duration timeout, const std::atomic<bool>& stop);
  // `stop` is set by then.
  ~PartnerCopies();

  // Begins to take other ranks' files of `step`, or, if the step cannot be kept here (`mine`),
  // tells them so.
  void Expect(const SavedStep& step, const absl::Status& mine);
  // Sends a piece, once the partner has written all but the last few before it. The partner's
  // failure, if it could not.
  absl::Status Send(const SavedStep& step, int64_t piece, const char* data, int64_t bytes,
                    int64_t file_bytes);
  // Waits until the partner has written all pieces; or, if `mine` is not OK, tells it that no more
  // come. `mine`, or the partner's failure.
  absl::Status EndFile(const SavedStep& step, const absl::Status& mine);
  // Until the files that this rank keeps are durable.
  absl::Status Await(const SavedStep& step);

 private:
  void Serve();
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

  std::mutex mutex_;
  std::condition_variable changed_;
  struct Expected {
    SavedStep step;
    absl::Status mine;
  };
  std::deque<Expected> expected_;
  std::map<std::string, absl::Status> taken_;  // by tag
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_PARTNER_COPIES_H_
