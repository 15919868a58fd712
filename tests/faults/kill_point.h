// KillPoint: where a process of a saving job kills itself with SIGKILL.
#ifndef LONGSPAN_TESTS_FAULTS_KILL_POINT_H_
#define LONGSPAN_TESTS_FAULTS_KILL_POINT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "saving_job.h"
#include "watched_files.h"

namespace longspan {

// The `nth` (from 1) operation of `rank` that has this label; "" is any.
struct KillPoint {
  enum When { kNever, kBefore, kHalfway, kAfter };  // halfway: half of the bytes are written
  When when = kNever;
  int rank = 0;
  std::string label;
  int64_t nth = 1;

  std::string text() const;
  // As in text(); false if it is none.
  static bool Parse(const std::string& text, KillPoint& point);
};

// Every point of the operations that ranks have made, given by their labels in order: before and
// after each one, and halfway through each write.
std::vector<KillPoint> AllKillPoints(const std::vector<std::vector<std::string>>& labels_by_rank);

// Kills this process at its point.
class KillWatcher : public OperationWatcher {
 public:
  // `seen`, if any, is told of every operation before it is made.
  KillWatcher(const KillPoint& point, int rank,
              std::function<void(const FileOperation&)> seen = nullptr)
      : point_(point), rank_(rank), seen_(std::move(seen)) {}
  Verdict Before(const FileOperation& operation) override;
  void After(const FileOperation& operation) override;

 private:
  const KillPoint point_;
  const int rank_;
  const std::function<void(const FileOperation&)> seen_;
  std::atomic<int64_t> before_ = 0, after_ = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_FAULTS_KILL_POINT_H_
