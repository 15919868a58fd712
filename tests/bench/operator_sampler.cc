#include "operator_sampler.h"

#include <chrono>

namespace longspan {
namespace {

constexpr std::chrono::microseconds kInterval(400);

}  // namespace

OperatorSampler::OperatorSampler(const Stream& stream)
    : thread_([this, &stream] {
        using Clock = std::chrono::steady_clock;
        Clock::time_point before = Clock::now();
        while (!stop_.load()) {
          std::this_thread::sleep_for(kInterval);
          // The time that really passed: a sleep may last longer than asked for.
          const Clock::time_point now = Clock::now();
          seconds_[stream.Current()] += std::chrono::duration<double>(now - before).count();
          before = now;
        }
      }) {}

OperatorSampler::~OperatorSampler() {
  if (thread_.joinable()) Stop();
}

std::map<std::string, double> OperatorSampler::Stop() {
  stop_ = true;
  thread_.join();
  return seconds_;
}

}  // namespace longspan
