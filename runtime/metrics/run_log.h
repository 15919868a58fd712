// RunLog: what rank 0 says, on standard error and in the run's log.txt; and the one progress line.
// Thread-safe. Other ranks hold a silent one.
#ifndef LONGSPAN_RUNTIME_METRICS_RUN_LOG_H_
#define LONGSPAN_RUNTIME_METRICS_RUN_LOG_H_

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace longspan {

class RunLog {
 public:
  // A log that says nothing.
  static std::unique_ptr<RunLog> Silent();
  // To standard error alone, until AppendTo.
  static std::unique_ptr<RunLog> ToStandardError();
  ~RunLog();

  // Lines go to `path` too, from now on.
  absl::Status AppendTo(const std::string& path);
  void Info(const std::string& line);
  void Warn(const std::string& line);
  // On a terminal replaces the last progress line; in a log or a pipe it is a plain line, which is
  // left out unless `keep`.
  void Progress(const std::string& line, bool keep);

 private:
  struct State;
  explicit RunLog(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// "1.5M", "12.3K", "512": counts for people.
std::string ShortCount(double count);
// "1.5 GiB".
std::string ShortBytes(double bytes);
// "2h05m", "3m20s", "12s".
std::string ShortTime(double seconds);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_METRICS_RUN_LOG_H_
