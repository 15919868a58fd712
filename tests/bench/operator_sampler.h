// OperatorSampler: where a stream's time goes, by the names that its work was launched under.
#ifndef LONGSPAN_TESTS_BENCH_OPERATOR_SAMPLER_H_
#define LONGSPAN_TESTS_BENCH_OPERATOR_SAMPLER_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <thread>

#include "kernels/device/stream.h"

namespace longspan {

// Asks a stream a few thousand times a second what it runs. Statistical: work much shorter than the
// interval shows up in proportion to its time, over many launches. One thread calls Stop; the
// stream outlives the sampler.
class OperatorSampler {
 public:
  explicit OperatorSampler(const Stream& stream);
  ~OperatorSampler();
  OperatorSampler(const OperatorSampler&) = delete;
  OperatorSampler& operator=(const OperatorSampler&) = delete;

  // Ends sampling. Seconds by name; "" is the time between two pieces of work.
  std::map<std::string, double> Stop();

 private:
  std::atomic<bool> stop_{false};
  std::map<std::string, double> seconds_;  // the thread's until it has joined
  std::thread thread_;                     // last: starts when the rest exists
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_BENCH_OPERATOR_SAMPLER_H_
