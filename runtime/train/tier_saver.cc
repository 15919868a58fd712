#include "runtime/train/tier_saver.h"

#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/storage.h"
#include "runtime/train/agreement.h"

namespace longspan {
namespace {

using Clock = std::chrono::steady_clock;

// Memory takes bytes about as fast as they are copied, so that a pool of a whole save would be
// another copy of the state for nothing.
constexpr int64_t kMemoryPool = int64_t{256} << 20;
constexpr double kSecondsBetweenWarnings = 10;

}  // namespace

TierSaver::TierSaver(Setting setting, const RunConfig::Checkpoint& config,
                     const TrainingState& state, Transport& transport, Device& device,
                     MetricsFile& metrics, RunLog& log)
    : setting_(std::move(setting)),
      config_(config),
      state_(state),
      transport_(transport),
      metrics_(metrics),
      log_(log),
      clock_(setting_.interval, device.threads().threads(), setting_.mtbf_seconds) {}

TierSaver::~TierSaver() = default;

absl::StatusOr<std::unique_ptr<TierSaver>> TierSaver::Open(Setting setting,
                                                           const RunConfig::Checkpoint& config,
                                                           const TrainingState& state,
                                                           Transport& transport, Device& device,
                                                           MetricsFile& metrics, RunLog& log) {
  std::unique_ptr<TierSaver> saver(
      new TierSaver(std::move(setting), config, state, transport, device, metrics, log));
  const bool memory = saver->name() == "memory";
  StorageOptions storage;
  if (memory) {
    storage = {.engine = StorageOptions::Engine::kThreads, .direct = false};
  } else if (config.storage != "auto") {
    storage.engine = config.storage == "threads" ? StorageOptions::Engine::kThreads
                                                 : StorageOptions::Engine::kIoUring;
  }
  absl::StatusOr<std::unique_ptr<FileSystem>> files = OpenStorage(storage);
  if (absl::Status status = Agree(transport, files.status()); !status.ok()) return status;
  saver->files_ = *std::move(files);
  LazyOptions lazy;
  lazy.in_flight = 1;  // another one would be another copy
  lazy.timeout = absl::Seconds(config.timeout);
  if (device.kind() != DeviceKind::kCpu) {
    lazy.copies = &saver->copies_.emplace(
        device.CreateStream(absl::StrCat("checkpoint ", saver->name()), StreamPriority::kLow));
  }
  lazy.pool_bytes = memory ? kMemoryPool : config.pool << 20;
  absl::StatusOr<std::unique_ptr<LazyCheckpointWriter>> writer =
      OpenTier(*saver->files_, saver->setting_.run, saver->setting_.generation,
               saver->setting_.options, lazy, state.Regions(), device.memory(), transport);
  if (absl::Status status = Agree(transport, writer.status()); !status.ok()) return status;
  saver->writer_ = *std::move(writer);
  if (saver->leader()) saver->CheckSpace();
  return saver;
}

void TierSaver::CheckSpace() {
  const TierOptions& options = setting_.options;
  log_.Info(absl::StrCat("checkpoints in ", name(), ": ", options.tier.directory,
                         options.partner         ? ", each in that of another node too"
                         : options.erasure.off() ? ""
                                                 : ", with parity on other nodes"));
  const double wanted = static_cast<double>(writer_->file_bytes()) * transport_.ranks_on_node() *
                        CopiesKept(options) * static_cast<double>(options.keep_last + 1);
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(setting_.base, error);
  if (!error && static_cast<double>(space.available) < wanted) {
    log_.Warn(absl::StrCat(setting_.base, " has ", ShortBytes(static_cast<double>(space.available)),
                           " free, but checkpoints there take up to ", ShortBytes(wanted),
                           ": those that do not fit will fail. Make it larger (docker run "
                           "--shm-size, mount -o remount,size=), or name another directory with "
                           "--set checkpoint.",
                           name(), "_directory=\"...\""));
  }
  int others = 0;
  const std::string prefix = absl::StrCat("longspan-", getuid(), "-");
  for (const auto& entry : std::filesystem::directory_iterator(setting_.base, error)) {
    const std::string found = entry.path().filename();
    others += found.rfind(prefix, 0) == 0 && entry.path() != options.tier.directory;
  }
  if (others > 0) {
    log_.Info(absl::StrCat(setting_.base, " holds checkpoints of ", others,
                           others == 1 ? " other run" : " other runs", " (", setting_.base, "/",
                           prefix, "*); those that are never resumed stay until they are removed"));
  }
}

void TierSaver::SaveIfDue(const RunState& run, Stream& stream, bool due, bool busy) {
  if (!clock_.DueByStep(run.step) && !due) return;
  if (run.step == requested_step_) return;
  if (busy) {
    clock_.Skipped();
    ++skipped_;
    return;
  }
  const Clock::time_point begin = Clock::now();
  clock_.Begun();
  SnapshotRequest request;
  request.step = run.step;
  request.metadata = [run] { return run.ToJson(); };
  request.complete = stream.Record();
  request.changed = std::exchange(changed_, false);
  request.content_sums = state_.ContentSums();
  gates_ = writer_->Snapshot(std::move(request));
  requested_step_ = run.step;
  under_way_[run.step].blocked_seconds = ElapsedSeconds(begin);
}

std::vector<Event> TierSaver::TakeGates() {
  if (!gates_.empty()) gated_step_ = requested_step_;
  return std::exchange(gates_, {});
}

void TierSaver::UpdateDone(double waited_seconds, bool changed, double step_seconds) {
  const auto gated = under_way_.find(std::exchange(gated_step_, -1));
  if (gated != under_way_.end()) gated->second.blocked_seconds += waited_seconds;
  if (step_seconds > 0) {
    for (auto& [step, save] : under_way_) save.steps.Add(step_seconds, /*beside_a_save=*/true);
  }
  changed_ |= changed;
  Report();
}

void TierSaver::Report() {
  for (const FinishedSave& finished : writer_->TakeFinished()) Account(finished);
}

void TierSaver::Drain() {
  writer_->Drain();
  Report();
}

void TierSaver::Account(const FinishedSave& finished) {
  const auto save = under_way_.extract(finished.step);
  if (!finished.status.ok()) {
    ++failed_;
    clock_.Failed();
    if (leader() && (failed_ == 1 || ElapsedSeconds(last_warning_) > kSecondsBetweenWarnings)) {
      last_warning_ = Clock::now();
      log_.Warn(absl::StrCat("training goes on: ", std::string(finished.status.message())));
    }
    return;
  }
  if (!leader()) return;
  for (const std::string& warning : finished.report.warnings) log_.Warn(warning);
  CheckpointMetrics metrics = MetricsOf(finished.step, setting_.generation, finished.report);
  metrics.tier = name();
  if (!save.empty()) {
    metrics.blocked_seconds = save.mapped().blocked_seconds;
    metrics.step_seconds_beside = save.mapped().steps.beside();
  }
  metrics.step_seconds_alone = setting_.steps->alone();
  metrics.skipped = skipped_;
  metrics.failed = failed_;
  costs_.Add(metrics);
  if (absl::Status status = metrics_.AppendCheckpoint(metrics); !status.ok()) {
    log_.Warn(std::string(status.message()));
  }
  if (const std::string choice = clock_.Learn(metrics); !choice.empty()) {
    log_.Info(absl::StrCat("checkpoint.", name(), "_interval \"auto\": ", choice));
  }
}

void TierSaver::Summarize() {
  if (leader() && costs_.saves() + skipped_ + failed_ > 0) {
    log_.Info(
        absl::StrCat("in ", name(), ": ", costs_.Summary(skipped_, failed_, *setting_.steps)));
  }
}

}  // namespace longspan
