#include "runtime/metrics/metrics_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace longspan {

using nlohmann::json;

absl::Status MetricsFile::Append(const StepMetrics& m) {
  const json object = {{"step", m.step},
                       {"attempt", m.attempt},
                       {"loss", m.loss},
                       {"rate", m.rate},
                       {"gradient_norm", m.gradient_norm},
                       {"clip_factor", m.clip_factor},
                       {"non_finite", m.non_finite},
                       {"skipped", m.skipped},
                       {"tokens", m.tokens},
                       {"sequences", m.sequences},
                       {"longest", m.longest},
                       {"groups", m.groups},
                       {"seconds", m.seconds},
                       {"tokens_per_second", m.tokens_per_second},
                       {"flops_per_second", m.flops_per_second},
                       {"flops_count", "causal"},
                       {"peak_share", m.peak_share},
                       {"busy_max_over_mean", m.busy_max_over_mean},
                       {"cpu_max_over_mean", m.cpu_max_over_mean},
                       {"cost_version", m.cost_version},
                       {"planned_gap", m.planned_gap},
                       {"planned_makespan", m.planned_makespan},
                       {"measured_makespan", m.measured_makespan},
                       {"phase_seconds", m.phase_seconds},
                       {"memory_bytes", m.memory_bytes},
                       {"exchanged_bytes", m.exchanged_bytes}};
  return Write(object.dump());
}

absl::Status MetricsFile::AppendEvaluation(int64_t step, int64_t attempt, double loss,
                                           int64_t tokens, double seconds) {
  const json object = {{"step", step},
                       {"attempt", attempt},
                       {"validation_loss", loss},
                       {"validation_tokens", tokens},
                       {"seconds", seconds}};
  return Write(object.dump());
}

absl::Status MetricsFile::AppendCheckpoint(const CheckpointMetrics& save) {
  const auto rate = [&](double seconds) {
    return seconds > 0 ? static_cast<double>(save.bytes) / seconds : 0;
  };
  json object = {{"step", save.step},
                 {"attempt", save.attempt},
                 {"checkpoint_bytes", save.bytes},
                 {"checkpoint_seconds", save.seconds},
                 {"blocked_seconds", save.blocked_seconds},
                 {"copy_seconds", save.copy_seconds},
                 {"copy_bytes_per_second", rate(save.copy_seconds)},
                 {"write_seconds", save.write_seconds},
                 {"write_bytes_per_second", rate(save.write_seconds)},
                 {"pool_wait_seconds", save.pool_seconds},
                 {"background_processor_seconds", save.processor_seconds},
                 {"checked_sums", save.checked_sums},
                 {"backlog_bytes", save.backlog_bytes},
                 {"skipped_saves", save.skipped},
                 {"failed_saves", save.failed}};
  if (!save.tier.empty()) object["tier"] = save.tier;
  if (save.step_seconds_beside > 0) object["step_seconds_beside"] = save.step_seconds_beside;
  if (save.step_seconds_alone > 0) object["step_seconds_alone"] = save.step_seconds_alone;
  if (save.step_seconds_beside > 0 && save.step_seconds_alone > 0) {
    object["slow_down"] = save.step_seconds_beside / save.step_seconds_alone - 1;
  }
  return Write(object.dump());
}

absl::Status MetricsFile::Write(const std::string& line) {
  const auto failed = [&] {
    return absl::UnavailableError(absl::StrCat(path_, ": cannot append: ", std::strerror(errno)));
  };
  const int file = open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) return failed();
  const std::string text = line + "\n";
  const bool written = write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const absl::Status status = written ? absl::OkStatus() : failed();
  close(file);
  return status;
}

}  // namespace longspan
