#include "runtime/train/run_checkpoints.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/lazy_writer.h"
#include "checkpoint/storage.h"
#include "checkpoint/tiers.h"
#include "runtime/train/agreement.h"
#include "runtime/train/save_clock.h"
#include "runtime/train/save_costs.h"
#include "runtime/train/tier_saver.h"

namespace longspan {
namespace {

using Clock = std::chrono::steady_clock;

// Between two lines about saves that went well: with a save every step they would fill the screen.
constexpr double kQuietSeconds = 10;

class Saver : public RunCheckpoints {
 public:
  Saver(const RunConfig& config, const TrainingState& state, Transport& transport, Device& device,
        MetricsFile& metrics, RunLog& log)
      : config_(config.checkpoint),
        state_(state),
        transport_(transport),
        device_(device),
        metrics_(metrics),
        log_(log),
        clock_(config_.interval, device.threads().threads(), SecondsBetweenFailures(false)) {}

  absl::Status Start(const RunConfig& config, const RunFolder& folder) {
    directory_ = folder.checkpoints();
    StorageOptions storage;
    if (config_.storage == "io_uring") storage.engine = StorageOptions::Engine::kIoUring;
    if (config_.storage == "threads") storage.engine = StorageOptions::Engine::kThreads;
    absl::StatusOr<std::unique_ptr<FileSystem>> files = OpenStorage(storage);
    if (absl::Status status = Agree(transport_, files.status()); !status.ok()) return status;
    files_ = *std::move(files);
    CheckpointOptions options;
    options.directory = folder.checkpoints();
    options.run_id = config.run.name;
    options.keep_last = static_cast<int>(config_.keep_last);
    options.keep_every = config_.keep_every;
    if (absl::Status status = OpenDirectory(options); !status.ok()) return status;
    return OpenTiers(options);
  }

  int64_t generation() const override {
    return lazy_ != nullptr ? lazy_->generation() : synchronous_->generation();
  }

  void Restored(int64_t step) override { requested_step_ = committed_step_ = step; }

  void CastVotes(double* votes) override {
    votes[kDue] = leader() && clock_.DueByClock() ? 1 : 0;
    votes[kBusy] = lazy_ != nullptr && lazy_->busy() ? 1 : 0;
    for (size_t i = 0; i < tiers_.size(); ++i) {
      votes[kTiersDue + i] = leader() && tiers_[i]->DueByClock() ? 1 : 0;
      votes[kTiersBusy + i] = tiers_[i]->busy() ? 1 : 0;
    }
    votes[kFailing] =
        leader() && config_.max_failures > 0 && failures_in_a_row_ >= config_.max_failures ? 1 : 0;
  }

  bool WantsContentSums(int64_t step, const double* votes) const override {
    bool wants = lazy_ != nullptr && (clock_.DueByStep(step) || votes[kDue] > 0);
    for (size_t i = 0; i < tiers_.size(); ++i) {
      wants |= tiers_[i]->DueByStep(step) || votes[kTiersDue + i] > 0;
    }
    return wants;
  }

  std::vector<Event> Gates(const Stream& stream) override {
    waited_before_ = stream.waited_seconds();
    gates_taken_ = true;
    std::vector<std::vector<Event>> sets = {std::exchange(gates_, {})};
    for (const std::unique_ptr<TierSaver>& tier : tiers_) sets.push_back(tier->TakeGates());
    std::vector<Event> gates(state_.layout().buckets().size());
    for (size_t bucket = 0; bucket < gates.size(); ++bucket) {
      std::vector<Event> all;
      for (const std::vector<Event>& set : sets) {
        if (bucket < set.size() && !set[bucket].Done()) all.push_back(set[bucket]);
      }
      if (!all.empty()) gates[bucket] = all.size() == 1 ? all[0] : WhenAll(all);
    }
    return gates;
  }

  absl::Status UpdateDone(const Stream& stream, bool changed, const double* votes) override {
    // An update that was skipped took no gates; they are there for the next one.
    const bool took_gates = std::exchange(gates_taken_, false);
    const double waited = took_gates ? stream.waited_seconds() - waited_before_ : 0;
    if (took_gates) {
      const auto save = under_way_.find(std::exchange(gated_step_, -1));
      if (save != under_way_.end()) save->second.blocked_seconds += waited;
    }
    const double step_seconds = StepTaken(waited);
    for (size_t i = 0; i < tiers_.size(); ++i) {
      tiers_[i]->UpdateDone(waited, changed, step_seconds);
      tiers_due_[i] = votes[kTiersDue + i] > 0;
      tiers_busy_[i] = votes[kTiersBusy + i] > 0;
    }
    changed_ |= changed;
    due_ = votes[kDue] > 0;
    busy_ = votes[kBusy] > 0;
    Report();
    if (votes[kFailing] == 0) return absl::OkStatus();
    return MarkAgreed(absl::AbortedError(
        absl::StrCat("the last ", config_.max_failures,
                     " checkpoints failed (checkpoint.max_failures); see the warnings")));
  }

  absl::Status SaveIfDue(const RunState& run, Stream& stream) override {
    const absl::Status status = SaveWhereDue(run, stream);
    step_begun_ = Clock::now();
    return status;
  }

  absl::Status Finish(const RunState& run, Stream& stream) override {
    absl::Status status;
    for (const std::unique_ptr<TierSaver>& tier : tiers_) tier->Drain();
    if (synchronous_ != nullptr) {
      if (requested_step_ != run.step || committed_step_ != run.step) status = SaveNow(run);
    } else {
      // Once more if the newest state was not committed: nothing comes after it.
      for (const bool again : {false, true}) {
        if (again || requested_step_ != run.step) Request(run, stream);
        lazy_->Drain();
        Report();
        absl::Status mine;
        // Committed, though this rank did not hear of it the first time.
        const bool known = again && absl::IsAlreadyExists(last_failure_);
        if (committed_step_ != run.step && !known) mine = last_failure_;
        status = Agree(transport_, mine);
        if (status.ok()) break;
      }
    }
    if (leader() && costs_.saves() + skipped_ + failed_ > 0) {
      log_.Info(costs_.Summary(skipped_, failed_, steps_));
    }
    for (const std::unique_ptr<TierSaver>& tier : tiers_) tier->Summarize();
    if (status.ok()) return RemoveTiers();
    return status;
  }

  void Drain() override {
    for (const std::unique_ptr<TierSaver>& tier : tiers_) tier->Drain();
    if (lazy_ != nullptr) lazy_->Drain();
    Report();
  }

 private:
  bool leader() const { return transport_.rank() == 0; }
  int NodeCount() const {
    return (transport_.size() + transport_.ranks_on_node() - 1) / transport_.ranks_on_node();
  }
  // Seconds between failures of the job that only a save of this kind cures: three in four leave
  // memory as it is.
  double SecondsBetweenFailures(bool memory) const {
    const double all = config_.mtbf * 3600 / NodeCount();
    if (config_.memory.interval.off()) return all;
    return memory ? all / 0.75 : all / 0.25;
  }

  absl::Status SaveWhereDue(const RunState& run, Stream& stream) {
    for (size_t i = 0; i < tiers_.size(); ++i) {
      tiers_[i]->SaveIfDue(run, stream, tiers_due_[i], tiers_busy_[i]);
    }
    if (!clock_.DueByStep(run.step) && !due_) return absl::OkStatus();
    if (run.step == requested_step_) return absl::OkStatus();
    if (synchronous_ != nullptr) {
      const absl::Status status = SaveNow(run);
      if (!status.ok() && !IsAgreed(status)) return status;
      return absl::OkStatus();
    }
    if (busy_ && config_.when_busy == "skip") {
      clock_.Skipped();
      ++skipped_;
      if (leader() && skipped_ == 1) {
        log_.Warn(absl::StrCat("checkpoint of step ", run.step, " skipped: ", config_.in_flight,
                               config_.in_flight == 1 ? " is" : " are",
                               " under way; the disk is slower than the interval asks for"));
      }
      return absl::OkStatus();
    }
    if (leader() && lazy_->busy() && !std::exchange(told_to_wait_, true)) {
      log_.Warn(absl::StrCat("checkpoint of step ", run.step, " waits, and training with it: ",
                             config_.in_flight, config_.in_flight == 1 ? " is" : " are",
                             " under way; saves take longer than checkpoint.interval gives them "
                             "(checkpoint.when_busy = \"skip\" leaves such ones out)"));
    }
    Request(run, stream);
    return absl::OkStatus();
  }

  // Seconds of the step that an update ends, without what it waited at gates; 0: not known. Before
  // saves that have ended are accounted for: they were under way in it.
  double StepTaken(double waited) {
    if (!step_begun_.has_value()) return 0;
    const double seconds = ElapsedSeconds(*std::exchange(step_begun_, std::nullopt)) - waited;
    bool beside = !under_way_.empty();
    for (const std::unique_ptr<TierSaver>& tier : tiers_) beside |= tier->under_way();
    steps_.Add(seconds, beside);
    for (auto& [step, save] : under_way_) save.steps.Add(seconds, /*beside_a_save=*/true);
    return seconds;
  }

  absl::Status OpenDirectory(const CheckpointOptions& options) {
    if (config_.mode == "synchronous") {
      absl::StatusOr<std::unique_ptr<CheckpointWriter>> writer =
          CheckpointWriter::Open(*files_, options, transport_);
      if (absl::Status status = Agree(transport_, writer.status()); !status.ok()) return status;
      synchronous_ = *std::move(writer);
      return absl::OkStatus();
    }
    LazyOptions lazy;
    lazy.pool_bytes = config_.pool << 20;
    lazy.in_flight = static_cast<int>(config_.in_flight);
    lazy.timeout = absl::Seconds(config_.timeout);
    if (device_.kind() != DeviceKind::kCpu) {
      lazy.copies = &copies_.emplace(device_.CreateStream("checkpoint", StreamPriority::kLow));
    }
    absl::StatusOr<std::unique_ptr<LazyCheckpointWriter>> writer = LazyCheckpointWriter::Open(
        *files_, options, lazy, state_.Regions(), device_.memory(), transport_);
    if (absl::Status status = Agree(transport_, writer.status()); !status.ok()) return status;
    lazy_ = *std::move(writer);
    return absl::OkStatus();
  }

  absl::Status OpenTiers(const CheckpointOptions& options) {
    struct Wanted {
      const char* name;
      const RunConfig::Checkpoint::Tier& tier;
    };
    std::vector<Wanted> wanted;
    std::vector<TierDirectory> bases;
    for (const Wanted& each : {Wanted{"memory", config_.memory}, Wanted{"local", config_.local}}) {
      if (each.tier.interval.off()) continue;
      wanted.push_back(each);
      bases.push_back({each.name, each.tier.directory});
    }
    if (wanted.empty()) return absl::OkStatus();
    if (bases.size() > 1 && bases[0].directory == bases[1].directory) {
      return MarkAgreed(absl::InvalidArgumentError(
          absl::StrCat("checkpoint.memory_directory and checkpoint.local_directory are the same, ",
                       bases[0].directory, ": each needs its own")));
    }
    absl::StatusOr<std::vector<TierDirectory>> directories =
        ClaimTiers(*files_, directory_, bases, transport_);
    if (absl::Status status = Agree(transport_, directories.status()); !status.ok()) return status;
    absl::StatusOr<std::vector<int>> nodes = NodesByHost(transport_);
    if (!nodes.ok()) return nodes.status();
    const bool one_node = *std::max_element(nodes->begin(), nodes->end()) == 0;
    for (size_t i = 0; i < wanted.size(); ++i) {
      TierSaver::Setting setting;
      setting.base = bases[i].directory;
      setting.options.tier = (*directories)[i];
      setting.options.keep_last = static_cast<int>(wanted[i].tier.keep);
      setting.options.keep_every = wanted[i].tier.keep_every;
      setting.options.partner = wanted[i].tier.partner && !one_node;
      setting.options.nodes = *nodes;
      setting.interval = wanted[i].tier.interval;
      setting.run = options;
      setting.generation = generation();
      setting.mtbf_seconds = SecondsBetweenFailures(i == 0 && bases[i].name == "memory");
      setting.steps = &steps_;
      if (leader() && wanted[i].tier.partner && one_node) {
        log_.Warn(absl::StrCat("checkpoint.", bases[i].name,
                               "_partner: all ranks are on one node, so no copies are kept"));
      }
      if (!wanted[i].tier.erasure.empty()) {
        absl::StatusOr<Erasure> erasure = ParseErasure(wanted[i].tier.erasure);
        if (!erasure.ok()) return erasure.status();
        ProtectByParity(*erasure, bases[i].name, setting.options);
      }
      absl::StatusOr<std::unique_ptr<TierSaver>> saver =
          TierSaver::Open(std::move(setting), config_, state_, transport_, device_, metrics_, log_);
      if (!saver.ok()) return saver.status();
      tiers_.push_back(*std::move(saver));
    }
    return absl::OkStatus();
  }

  // With too few nodes a run that lost some goes on, as without a partner, and says so.
  void ProtectByParity(const Erasure& erasure, const std::string& name, TierOptions& options) {
    const int nodes = *std::max_element(options.nodes.begin(), options.nodes.end()) + 1;
    if (nodes > erasure.parity) options.erasure = erasure;
    if (!leader() || nodes >= erasure.data + erasure.parity) return;
    const std::string key =
        absl::StrCat("checkpoint.", name, "_erasure: \"", erasure.data, "+", erasure.parity,
                     "\" is for ", erasure.data + erasure.parity, " nodes, there are ", nodes);
    log_.Warn(options.erasure.off() ? absl::StrCat(key, ", too few to keep any parity")
                                    : absl::StrCat(key, ": what protects the files takes ",
                                                   absl::StrFormat("%.2g", CopiesKept(options) - 1),
                                                   " of their size"));
  }

  // The newest state is committed in the checkpoint directory: what is in tiers, of earlier
  // attempts too, is of no more use. Collective.
  absl::Status RemoveTiers() {
    absl::StatusOr<std::vector<TierDirectory>> known = ReadTiers(*files_, directory_);
    if (!known.ok() || known->empty()) return absl::OkStatus();
    tiers_.clear();
    // Nobody is at work there any more.
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    if (transport_.rank_on_node() != 0) return absl::OkStatus();
    for (const TierDirectory& tier : *known) {
      if (absl::Status status = RemoveTier(*files_, tier); !status.ok()) {
        log_.Warn(absl::StrCat("not removed: ", std::string(status.message())));
      }
    }
    return absl::OkStatus();
  }

  // Lazy. The training thread's part of a save.
  void Request(const RunState& run, Stream& stream) {
    const Clock::time_point begin = Clock::now();
    clock_.Begun();
    SnapshotRequest request;
    request.step = run.step;
    request.metadata = [run] { return run.ToJson(); };
    request.complete = stream.Record();
    request.changed = std::exchange(changed_, false);
    request.content_sums = state_.ContentSums();
    gates_ = lazy_->Snapshot(std::move(request));
    requested_step_ = gated_step_ = run.step;
    under_way_[run.step].blocked_seconds = ElapsedSeconds(begin);
  }

  // Synchronous. Errors that all ranks have are warned of and counted.
  absl::Status SaveNow(const RunState& run) {
    const Clock::time_point begin = Clock::now();
    absl::StatusOr<SaveReport> report = absl::UnknownError("not saved");
    const absl::Status copied = state_.Save([&](const std::vector<StateRegion>& regions) {
      report = synchronous_->Save(run.step, regions, run.ToJson());
      return report.status();
    });
    if (!copied.ok()) report = copied;
    clock_.Begun();
    const absl::Status status = Agree(transport_, report.status());
    requested_step_ = run.step;
    under_way_[run.step].blocked_seconds = ElapsedSeconds(begin);
    FinishedSave finished{run.step, status, report.ok() ? *report : SaveReport()};
    Account(finished);
    return status;
  }

  // Saves that have ended.
  void Report() {
    if (lazy_ == nullptr) return;
    for (const FinishedSave& finished : lazy_->TakeFinished()) Account(finished);
  }

  void Account(const FinishedSave& finished) {
    const auto save = under_way_.extract(finished.step);
    if (!finished.status.ok()) {
      ++failed_;
      clock_.Failed();
      ++failures_in_a_row_;
      last_failure_ = finished.status;
      if (leader()) {
        log_.Warn(absl::StrCat("training goes on, the checkpoint before stays: ",
                               std::string(finished.status.message())));
      }
      return;
    }
    failures_in_a_row_ = 0;
    committed_step_ = std::max(committed_step_, finished.step);
    if (!leader()) return;
    for (const std::string& warning : finished.report.warnings) log_.Warn(warning);
    CheckpointMetrics metrics = MetricsOf(finished.step, generation(), finished.report);
    if (!save.empty()) {
      metrics.blocked_seconds = save.mapped().blocked_seconds;
      metrics.step_seconds_beside = save.mapped().steps.beside();
    }
    metrics.step_seconds_alone = steps_.alone();
    metrics.skipped = skipped_;
    metrics.failed = failed_;
    costs_.Add(metrics);
    if (absl::Status status = metrics_.AppendCheckpoint(metrics); !status.ok()) {
      log_.Warn(std::string(status.message()));
    }
    if (const std::string choice = clock_.Learn(metrics); !choice.empty()) {
      log_.Info(absl::StrCat("checkpoint.interval \"auto\": ", choice));
    }
    if (costs_.saves() == 1) log_.Info(absl::StrCat("checkpoints: ", Description()));
    if (costs_.saves() > 1 && ElapsedSeconds(last_line_) < kQuietSeconds) return;
    last_line_ = Clock::now();
    log_.Info(
        absl::StrFormat("checkpoint of step %d: %s a rank, %.3g ms blocked, committed after "
                        "%.2f s, %s",
                        finished.step, ShortBytes(static_cast<double>(metrics.bytes)),
                        1e3 * metrics.blocked_seconds, metrics.seconds, finished.report.directory));
  }

  std::string Description() const {
    if (lazy_ == nullptr) return absl::StrCat("synchronous; storage: ", files_->description());
    return absl::StrCat("lazy, up to ", config_.in_flight, " under way, ",
                        ShortBytes(static_cast<double>(lazy_->pool_bytes())),
                        " of host memory a rank; storage: ", files_->description());
  }

  const RunConfig::Checkpoint& config_;
  const TrainingState& state_;
  Transport& transport_;
  Device& device_;
  MetricsFile& metrics_;
  RunLog& log_;
  std::unique_ptr<FileSystem> files_;
  std::unique_ptr<CheckpointWriter> synchronous_;
  std::optional<Stream> copies_;                // on a GPU, where saves are lazy
  std::unique_ptr<LazyCheckpointWriter> lazy_;  // one of the two

  std::string directory_;
  StepSeconds steps_;
  std::vector<std::unique_ptr<TierSaver>> tiers_;
  bool tiers_due_[kMostTiers] = {}, tiers_busy_[kMostTiers] = {};  // as agreed

  std::vector<Event> gates_;  // of the newest snapshot, until an update takes them
  double waited_before_ = 0;
  bool gates_taken_ = false;
  int64_t gated_step_ = -1;                    // whose gates the next update waits at
  std::map<int64_t, SaveUnderWay> under_way_;  // by step
  std::optional<Clock::time_point> step_begun_;
  bool changed_ = false;             // since the last snapshot
  bool due_ = false, busy_ = false;  // as agreed

  int64_t requested_step_ = -1, committed_step_ = -1;
  int64_t skipped_ = 0, failed_ = 0, failures_in_a_row_ = 0;
  bool told_to_wait_ = false;
  absl::Status last_failure_ = absl::UnknownError("not saved");
  Clock::time_point last_line_;
  SaveClock clock_;
  SaveCosts costs_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RunCheckpoints>> RunCheckpoints::Open(
    const RunConfig& config, const RunFolder& folder, const TrainingState& state,
    Transport& transport, Device& device, MetricsFile& metrics, RunLog& log) {
  auto saver = std::make_unique<Saver>(config, state, transport, device, metrics, log);
  if (absl::Status status = saver->Start(config, folder); !status.ok()) return status;
  return saver;
}

}  // namespace longspan
