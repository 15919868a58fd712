// Step timing: when a stream came to a point, and what each rank's forward and backward took.
#ifndef LONGSPAN_RUNTIME_TRAIN_STEP_TIMING_H_
#define LONGSPAN_RUNTIME_TRAIN_STEP_TIMING_H_

#include <algorithm>
#include <chrono>
#include <ctime>
#include <memory>
#include <numeric>
#include <vector>

#include "kernels/device/stream.h"

namespace longspan {

// A point in a stream's work. Read it once the stream has passed it.
class Mark {
 public:
  void Queue(Stream& stream) const {
    stream.RunOnHost("mark", [point = point_] {
      point->time = std::chrono::steady_clock::now();
      timespec cpu{};
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
      point->cpu_seconds =
          static_cast<double>(cpu.tv_sec) + 1e-9 * static_cast<double>(cpu.tv_nsec);
      return absl::OkStatus();
    });
  }
  double SecondsAfter(const Mark& earlier) const {
    return std::chrono::duration<double>(point_->time - earlier.point_->time).count();
  }
  // Processor seconds of the thread that does the stream's work, on a GPU its work on the host.
  double CpuSecondsAfter(const Mark& earlier) const {
    return point_->cpu_seconds - earlier.point_->cpu_seconds;
  }

 private:
  struct Point {
    std::chrono::steady_clock::time_point time;
    double cpu_seconds = 0;
  };
  std::shared_ptr<Point> point_ = std::make_shared<Point>();
};

// Seconds of one step's forward and backward, one figure a rank: in an all-reduce over ranks each
// fills its own places and leaves zeros in the others'.
class RankSeconds {
 public:
  enum Figure {
    kBusy,     // without waiting for other ranks
    kCompute,  // waiting included
    kCpu,      // of the stream's thread: the balance where ranks share cores
    kFigures
  };

  // `places`: kFigures * ranks of them, owned by the caller.
  RankSeconds(double* places, int ranks) : places_(places), ranks_(ranks) {}

  double& at(Figure figure, int rank) { return places_[figure * ranks_ + rank]; }
  double Max(Figure figure) const { return *std::max_element(begin(figure), end(figure)); }
  // 1 is perfect balance; 1 too where nothing was measured.
  double MaxOverMean(Figure figure) const {
    const double mean = std::accumulate(begin(figure), end(figure), 0.0) / ranks_;
    return mean > 0 ? Max(figure) / mean : 1;
  }

 private:
  const double* begin(Figure figure) const { return places_ + figure * ranks_; }
  const double* end(Figure figure) const { return begin(figure) + ranks_; }

  double* places_;
  int ranks_;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_STEP_TIMING_H_
