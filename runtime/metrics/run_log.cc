#include "runtime/metrics/run_log.h"

#include <unistd.h>

#include <cstdio>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "spdlog/sinks/basic_file_sink.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace longspan {

struct RunLog::State {
  std::mutex mutex;
  std::shared_ptr<spdlog::sinks::sink> console, file;
  bool terminal = false;
  bool progress_shown = false;

  void Write(spdlog::sinks::sink* sink, spdlog::level::level_enum level, const std::string& line) {
    if (sink == nullptr) return;
    sink->log(spdlog::details::log_msg("", level, line));
    sink->flush();
  }

  void Say(spdlog::level::level_enum level, const std::string& line) {
    std::lock_guard lock(mutex);
    if (console == nullptr) return;
    ClearProgress();
    Write(console.get(), level, level >= spdlog::level::warn ? "warning: " + line : line);
    Write(file.get(), level, line);
  }

  void ClearProgress() {
    if (!progress_shown) return;
    std::fputs("\r\033[K", stderr);
    progress_shown = false;
  }
};

RunLog::RunLog(std::unique_ptr<State> state) : state_(std::move(state)) {}

RunLog::~RunLog() {
  if (state_->progress_shown) std::fputs("\n", stderr);
}

std::unique_ptr<RunLog> RunLog::Silent() {
  return std::unique_ptr<RunLog>(new RunLog(std::make_unique<State>()));
}

std::unique_ptr<RunLog> RunLog::ToStandardError() {
  auto state = std::make_unique<State>();
  state->console = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  state->console->set_pattern("%v");
  state->terminal = isatty(STDERR_FILENO) != 0;
  return std::unique_ptr<RunLog>(new RunLog(std::move(state)));
}

absl::Status RunLog::AppendTo(const std::string& path) {
  std::lock_guard lock(state_->mutex);
  if (state_->console == nullptr) return absl::OkStatus();
  try {
    state_->file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
    state_->file->set_pattern("%Y-%m-%dT%H:%M:%S%z %l %v");
  } catch (const spdlog::spdlog_ex& error) {
    return absl::PermissionDeniedError(absl::StrCat("cannot write the log: ", error.what()));
  }
  return absl::OkStatus();
}

void RunLog::Info(const std::string& line) { state_->Say(spdlog::level::info, line); }

void RunLog::Warn(const std::string& line) { state_->Say(spdlog::level::warn, line); }

void RunLog::Progress(const std::string& line, bool keep) {
  if (!state_->terminal) {
    if (keep) Info(line);
    return;
  }
  std::lock_guard lock(state_->mutex);
  std::fprintf(stderr, "\r%s\033[K", line.c_str());
  std::fflush(stderr);
  state_->progress_shown = true;
  if (keep) state_->Write(state_->file.get(), spdlog::level::info, line);
}

std::string ShortCount(double count) {
  if (count >= 1e9) return absl::StrFormat("%.2fG", count / 1e9);
  if (count >= 1e6) return absl::StrFormat("%.2fM", count / 1e6);
  if (count >= 1e4) return absl::StrFormat("%.1fK", count / 1e3);
  return absl::StrFormat("%.0f", count);
}

std::string ShortBytes(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? absl::StrFormat("%.0f B", bytes)
                   : absl::StrFormat("%.1f %s", bytes, units[unit]);
}

std::string ShortTime(double seconds) {
  const int64_t whole = static_cast<int64_t>(seconds + 0.5);
  if (whole >= 3600) return absl::StrFormat("%dh%02dm", whole / 3600, whole / 60 % 60);
  if (whole >= 60) return absl::StrFormat("%dm%02ds", whole / 60, whole % 60);
  return absl::StrFormat("%ds", whole);
}

}  // namespace longspan
