// Partners: ranks of other nodes that keep what brings a lost node's files back, made from the
// pieces of these files as they are written: copies (partner_copies.h) or parity
// (parity_partners.h).
#ifndef LONGSPAN_CHECKPOINT_PARTNERS_H_
#define LONGSPAN_CHECKPOINT_PARTNERS_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "checkpoint/step_protocol.h"

namespace longspan {

// Send and EndFile on one thread, Expect before them on the same, Await on another. Every step gets
// Expect, EndFile and Await, in the order of steps.
class Partners {
 public:
  virtual ~Partners() = default;
  // Begins to take what other ranks send of `step`, or, if the step cannot be kept here (`mine`),
  // tells them so.
  virtual void Expect(const SavedStep& step, const absl::Status& mine) = 0;
  // Sends a piece of this rank's file, once the partners are through with all but the last few
  // before it. A partner's failure, if it could not.
  virtual absl::Status Send(const SavedStep& step, int64_t piece, const char* data, int64_t bytes,
                            int64_t file_bytes) = 0;
  // Waits until the partners are through with all that was sent; or, if `mine` is not OK, tells
  // them that no more comes. `mine`, or a partner's failure.
  virtual absl::Status EndFile(const SavedStep& step, const absl::Status& mine) = 0;
  // Until what this rank keeps of others is durable.
  virtual absl::Status Await(const SavedStep& step) = 0;
};

// The side that keeps: a thread that does it for one step after the other.
class KeepingThread {
 public:
  using Keep = std::function<absl::Status(const SavedStep& step, const absl::Status& mine)>;
  explicit KeepingThread(Keep keep);
  // After the steps that are expected.
  ~KeepingThread();

  void Expect(const SavedStep& step, const absl::Status& mine);
  // What came of it. Once for each step.
  absl::Status Await(const SavedStep& step);

 private:
  void Serve();

  const Keep keep_;
  std::mutex mutex_;
  std::condition_variable changed_;
  struct Expected {
    SavedStep step;
    absl::Status mine;
  };
  std::deque<Expected> expected_;
  std::map<std::string, absl::Status> kept_;  // by tag
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_PARTNERS_H_
