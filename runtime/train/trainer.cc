#include "runtime/train/trainer.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/device/mirrored_buffer.h"
#include "kernels/device/trace.h"
#include "kernels/elementwise.h"
#include "optim/gradient_norms.h"
#include "parallel/planner.h"
#include "parallel/transport/connect_peers.h"
#include "runtime/metrics/metrics_file.h"
#include "runtime/metrics/run_log.h"
#include "runtime/model/hugging_face.h"
#include "runtime/model/transformer.h"
#include "runtime/trace/run_trace.h"
#include "runtime/train/agreement.h"
#include "runtime/train/cost_refit.h"
#include "runtime/train/evaluation.h"
#include "runtime/train/failure.h"
#include "runtime/train/norm_recorder.h"
#include "runtime/train/plan_ahead.h"
#include "runtime/train/restore.h"
#include "runtime/train/run_checkpoints.h"
#include "runtime/train/run_description.h"
#include "runtime/train/run_schedule.h"
#include "runtime/train/run_setup.h"
#include "runtime/train/run_state.h"
#include "runtime/train/step_inputs.h"
#include "runtime/train/step_timing.h"
#include "runtime/train/training_state.h"

namespace longspan {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Places after optim's sums in the vector that all ranks add up once a step.
enum ExtraSum : int {
  kSaveVotesSum = kStepSums,                          // RunCheckpoints::Vote from here on
  kAdamSum = kSaveVotesSum + RunCheckpoints::kVotes,  // of the update before
  kRankSecondsSum,                                    // the places of RankSeconds from here on
};

// A step that is ready to run: planned and its tokens read, while the step before still computes.
struct PreparedStep : PlannedStep {
  std::vector<MicroBatchInputs> inputs;
  double seconds = 0;  // that its plan was waited for and its tokens read
};

class Trainer {
 public:
  Trainer(const TrainRequest& request, Transport& transport, Device& device)
      : request_(request),
        config_(request.config),
        transport_(transport),
        device_(device),
        folder_(FolderOf(request.config)),
        metrics_(folder_.metrics()),
        log_(transport.rank() == 0 ? RunLog::ToStandardError() : RunLog::Silent()),
        trace_(request.trace, transport, device),
        host_device_(device.kind() == DeviceKind::kCpu ? nullptr : Device::OpenCpu(1)),
        stream_(device.CreateStream("compute")) {
    device.set_deterministic(config_.run.deterministic);
    if (host_device_ != nullptr) host_stream_.emplace(host_device_->CreateStream("host"));
  }

  absl::Status SetUp();
  absl::Status Run();
  // After an error that all ranks have: what is being saved is worth keeping.
  void KeepSaves() {
    if (checkpoints_ != nullptr) checkpoints_->Drain();
  }

 private:
  bool leader() const { return transport_.rank() == 0; }
  // Where figures are reduced: a CPU's stream, which on the CPU is the one that computes.
  Stream& host() { return host_stream_.has_value() ? *host_stream_ : stream_; }
  absl::Status SynchronizeBoth() {
    absl::Status status = stream_.Synchronize();
    if (host_stream_.has_value()) status.Update(host_stream_->Synchronize());
    return status;
  }
  // What the device sums up for the host, f64: the gradient's statistics, then the update's own
  // measure of it.
  TensorView figures(int64_t begin, int64_t count) const {
    return figures_.OnDevice(DType::kF64, {count}, begin * SizeOf(DType::kF64));
  }
  const double* figures_on_host() const {
    return figures_.OnHost(DType::kF64, {kFigures}).data<double>();
  }
  RankSeconds rank_seconds() { return {sums_.data() + kRankSecondsSum, transport_.size()}; }

  // Set-up, in order.
  absl::Status OpenAll();
  absl::Status MakeSchedule(absl::StatusOr<Schedule> schedule) {
    if (!schedule.ok()) return schedule.status();
    schedule_ = std::make_unique<Schedule>(*std::move(schedule));
    run_.schedule = schedule_->ToJson();
    return absl::OkStatus();
  }
  absl::Status StartOrRestore();

  absl::StatusOr<PreparedStep> Prepare();
  // Runs `current`, prepares `next` meanwhile (unless this is the last step).
  absl::Status Step(PreparedStep& current, PreparedStep* next);
  absl::Status Update(const StepSumVector& sums, int64_t targets, bool last, StepMetrics& metrics);
  absl::Status NotFinite(const PreparedStep& current, const GradientNorms& norms,
                         double loss) const;
  void Report(const StepMetrics& metrics);
  // For what a run can do without.
  void WarnUnless(const absl::Status& status) {
    if (!status.ok()) log_->Warn(std::string(status.message()));
  }
  absl::Status Evaluate();
  absl::Status RefitCost();

  const TrainRequest& request_;
  const RunConfig& config_;
  Transport& transport_;
  Device& device_;
  const RunFolder folder_;
  MetricsFile metrics_;
  NormRecorder norms_;
  std::unique_ptr<RunLog> log_;

  std::unique_ptr<Dataset> dataset_;
  std::unique_ptr<Planner> planner_;
  std::unique_ptr<Schedule> schedule_;
  std::unique_ptr<PlanAhead> plans_;
  std::unique_ptr<TrainingState> state_;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<RunCheckpoints> checkpoints_;
  RunState run_;

  Evaluation evaluation_;
  std::unique_ptr<CostRefit> refit_;  // none: the cost model stays

  static constexpr int64_t kFigures = kGradientStatistics + 1;
  MirroredBuffer figures_;
  StepBuffers step_buffers_;
  std::vector<double> sums_;  // of the step's one small all-reduce
  RingWorkspace ring_workspace_;
  std::vector<std::unique_ptr<PlannedAttention>>
      patterns_;               // alive while the step's work is queued
  double peak_flops_ = 0;      // of all ranks
  double seconds_a_step_ = 0;  // smoothed
  double last_loss_ = 0, validation_loss_ = NAN;
  int64_t steps_done_ = 0;  // in this call
  int64_t tokens_done_ = 0;
  double training_seconds_ = 0;
  bool stop_agreed_ = false;
  RunTrace trace_;

  const std::unique_ptr<Device> host_device_;  // beside a GPU
  Stream stream_;                              // last: its queued work may use all of the above
  std::optional<Stream> host_stream_;
};

absl::Status Trainer::OpenAll() {
  const auto local = [&]() -> absl::Status {
    absl::StatusOr<std::unique_ptr<Dataset>> dataset = OpenDataset(config_);
    if (!dataset.ok()) return dataset.status();
    dataset_ = *std::move(dataset);
    absl::StatusOr<ModelConfig> model = ModelOf(config_, *dataset_);
    if (!model.ok()) return model.status();
    run_.model = *model;
    if (request_.resume.empty()) {
      if (absl::Status status = MakeSchedule(ScheduleOf(config_)); !status.ok()) return status;
    }
    absl::StatusOr<std::unique_ptr<Planner>> planner = CreatePlanner(config_.planner.policy);
    if (!planner.ok()) return planner.status();
    planner_ = *std::move(planner);
    if (absl::Status status =
            PlanRequestOf(config_, run_.model, transport_.size(), transport_.ranks_on_node())
                .status();
        !status.ok())
      return status;
    if (absl::Status status = CheckCapacity(config_, *dataset_, transport_.size()); !status.ok())
      return status;

    run_.cursor = dataset_->Begin();
    run_.data_fingerprint = dataset_->fingerprint();
    run_.tokenizer_kind = dataset_->tokenizer_kind();
    run_.config = request_.entries;
    return absl::OkStatus();
  };
  return Agree(transport_, local());
}

absl::Status Trainer::SetUp() {
  if (absl::Status status = OpenAll(); !status.ok()) return status;
  if (absl::Status status =
          PrepareFolder(folder_, request_.resume, request_.config_toml, *dataset_, transport_);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = Agree(transport_, log_->AppendTo(leader() ? folder_.log() : ""));
      !status.ok())
    return status;

  // While there is memory for it.
  absl::StatusOr<double> peak = MeasurePeakOfAllRanks(transport_, stream_);
  if (!peak.ok()) return peak.status();
  peak_flops_ = *peak;

  const auto allocate = [&]() -> absl::Status {
    absl::StatusOr<std::unique_ptr<TrainingState>> state = TrainingState::Create(
        run_.model, OptimizerOf(config_), transport_, device_, GradientWireOf(config_));
    if (!state.ok()) return state.status();
    state_ = *std::move(state);
    const int64_t rows = config_.batch.micro_batch_tokens;
    absl::StatusOr<std::unique_ptr<Transformer>> model =
        Transformer::Create(run_.model, rows, true, device_);
    if (!model.ok()) return model.status();
    model_ = *std::move(model);
    absl::StatusOr<MirroredBuffer> figures =
        MirroredBuffer::Allocate(device_, kFigures * SizeOf(DType::kF64), "figures");
    if (!figures.ok()) return figures.status();
    figures_ = *std::move(figures);
    sums_.assign(kRankSecondsSum + RankSeconds::kFigures * transport_.size(), 0.0);
    return absl::OkStatus();
  };
  if (absl::Status status = Agree(transport_, FailureAt("set-up", device_, allocate()));
      !status.ok())
    return status;
  if (absl::Status status = ConnectPeers(transport_, device_); !status.ok()) return status;
  if (absl::Status status = StartOrRestore(); !status.ok()) return status;
  if (leader()) WarnUnless(norms_.Open(folder_.norms(), config_, run_.schedule, run_.step));
  const auto evaluation = [&]() -> absl::Status {
    absl::StatusOr<PlanRequest> request =
        PlanRequestOf(config_, run_.model, transport_.size(), transport_.ranks_on_node());
    if (!request.ok()) return request.status();
    absl::StatusOr<Evaluation> made = Evaluation::Create(
        *dataset_, config_.metrics.evaluate_tokens, *planner_, *std::move(request),
        AttentionOf(config_, device_.kind()), transport_.rank(), device_);
    if (made.ok()) evaluation_ = *std::move(made);
    return made.status();
  };
  if (absl::Status status = Agree(transport_, FailureAt("set-up", device_, evaluation()));
      !status.ok())
    return status;
  DescribeRun(*log_, folder_, run_.model, state_->layout().tensor_elements(), *dataset_, transport_,
              device_, peak_flops_, *schedule_);
  return absl::OkStatus();
}

absl::Status Trainer::StartOrRestore() {
  bool restored = false;
  if (!request_.resume.empty()) {
    absl::StatusOr<bool> found = RestoreRun(request_.resume, folder_, config_, request_.entries,
                                            *state_, transport_, *log_, run_);
    if (!found.ok()) return found.status();
    restored = *found;
    // A resumed run may not need the files that its schedule was made from.
    absl::Status made =
        MakeSchedule(restored ? Schedule::FromJson(run_.schedule) : ScheduleOf(config_));
    if (absl::Status status = Agree(transport_, made); !status.ok()) return status;
  }
  if (restored) {
    state_->GatherParameters(stream_);
  } else {
    const auto fill = [&](TensorView arena) -> absl::Status {
      InitializeWeights(run_.model, state_->layout(), static_cast<uint64_t>(config_.run.seed),
                        arena, device_.threads());
      if (config_.model.init == "random") return absl::OkStatus();
      return Agree(transport_,
                   ReadHuggingFaceWeights(config_.model.init, run_.model, state_->layout(), arena));
    };
    if (absl::Status status = state_->SetParameters(fill, stream_); !status.ok()) return status;
  }
  if (absl::Status status = stream_.Synchronize(); !status.ok()) return status;

  absl::StatusOr<std::unique_ptr<RunCheckpoints>> checkpoints =
      RunCheckpoints::Open(config_, folder_, *state_, transport_, device_, metrics_, *log_);
  if (!checkpoints.ok()) return checkpoints.status();
  checkpoints_ = *std::move(checkpoints);
  if (restored) checkpoints_->Restored(run_.step);
  return absl::OkStatus();
}

absl::StatusOr<PreparedStep> Trainer::Prepare() {
  const Clock::time_point begin = Clock::now();
  absl::StatusOr<PlannedStep> planned = [&] {
    const HostSpan span(device_, {"wait for the plan", TraceKind::kPlan});
    return plans_->Next();
  }();
  if (!planned.ok()) return planned.status();
  PreparedStep prepared{*std::move(planned), {}};
  const HostSpan span(device_, {"read tokens", TraceKind::kData});
  absl::StatusOr<std::vector<MicroBatchInputs>> inputs = ReadStepInputs(
      prepared.plan, transport_.rank(), prepared.sequences, *dataset_, device_.memory());
  if (!inputs.ok()) return inputs.status();
  prepared.inputs = *std::move(inputs);
  prepared.seconds = SecondsSince(begin);
  return prepared;
}

absl::Status Trainer::NotFinite(const PreparedStep& current, const GradientNorms& norms,
                                double loss) const {
  std::vector<std::string> names;
  for (const SequenceRef& sequence : current.sequences) {
    if (names.size() == 8) {
      names.push_back(absl::StrCat("and ", current.sequences.size() - 8, " more"));
      break;
    }
    names.push_back(dataset_->Describe(sequence));
  }
  return MarkAgreed(absl::InternalError(absl::StrCat(
      "step ", run_.step + 1, ": loss ", loss, ", ", norms.non_finite,
      " gradient values that are not finite; the batch was: ", absl::StrJoin(names, "; "),
      ". Nothing was updated. Try a lower schedule.peak, or run.on_nonfinite = \"skip\"")));
}

absl::Status Trainer::Update(const StepSumVector& sums, int64_t targets, bool last,
                             StepMetrics& metrics) {
  const GradientNorms norms = NormsOf(sums, targets);
  metrics.gradient_norm = norms.l2;
  metrics.non_finite = norms.non_finite;
  metrics.clip_factor = ClipFactor(norms.l2, config_.optimizer.clip);
  metrics.rate = schedule_->Rate(run_.step);
  if (norms.non_finite > 0 || !std::isfinite(metrics.loss)) {
    metrics.skipped = true;
    return absl::OkStatus();
  }
  ++run_.updates;
  const OptimizerStep step{metrics.rate, metrics.clip_factor / static_cast<double>(targets),
                           run_.updates};
  const StreamSpan span(stream_, {"update", TraceKind::kUpdate});
  const TensorView adam_sum = figures(kGradientStatistics, 1);
  Zero(adam_sum, stream_);
  // A run that ends saves what it then has.
  const bool saved = last || sums[kStopVotesSum] > 0 ||
                     checkpoints_->WantsContentSums(run_.step + 1, sums_.data() + kSaveVotesSum);
  state_->Update(step, checkpoints_->Gates(stream_), stream_, adam_sum, saved);
  figures_.ToHost(0, figures_.bytes(), stream_);
  return absl::OkStatus();
}

absl::Status Trainer::Step(PreparedStep& current, PreparedStep* next) {
  const Clock::time_point begin = Clock::now();
  const int64_t targets = current.plan.total_tokens();
  const int64_t exchanged_before = transport_.exchanged_bytes();
  if (absl::Status status = step_buffers_.Take(current.inputs, device_); !status.ok())
    return status;
  StepMetrics metrics;
  Mark start, computed, reduced, updated;
  std::vector<Mark> micro_batches;  // the end of each, after the begin of the first
  auto loss_sum = std::make_shared<double>(0.0);
  std::fill(sums_.begin(), sums_.end(), 0.0);
  patterns_.clear();

  start.Queue(stream_);
  const double waited_before = stream_.waited_seconds();  // the stream has nothing to do yet
  {
    const StreamSpan span(stream_, {"zero gradients", TraceKind::kTask});
    Zero(state_->gradient_arena(), stream_);
  }
  Zero(figures(0, kGradientStatistics), stream_);
  if (refit_ != nullptr) micro_batches.emplace_back().Queue(stream_);
  for (size_t i = 0; i < current.inputs.size(); ++i) {
    const MicroBatchInputs& inputs = current.inputs[i];
    const StreamSpan span(
        stream_,
        {.name = "micro-batch", .kind = TraceKind::kTask, .micro_batch = static_cast<int32_t>(i)});
    patterns_.push_back(std::make_unique<PlannedAttention>(inputs.ring, inputs.whole,
                                                           AttentionOf(config_, device_.kind()),
                                                           transport_, ring_workspace_));
    absl::Status status =
        model_->ForwardBackward(inputs.batch, *patterns_.back(), state_->weights(),
                                state_->gradients(), step_buffers_.Losses(i), stream_);
    if (!status.ok()) return status;
    step_buffers_.QueueLossSum(i, loss_sum, stream_);
    if (refit_ != nullptr) micro_batches.emplace_back().Queue(stream_);
  }
  computed.Queue(stream_);
  stream_.RunOnHost("busy", [this, start, computed, waited_before] {
    const double seconds = computed.SecondsAfter(start);
    RankSeconds all = rank_seconds();
    all.at(RankSeconds::kCompute, transport_.rank()) = seconds;
    all.at(RankSeconds::kBusy, transport_.rank()) =
        seconds - (stream_.waited_seconds() - waited_before);
    all.at(RankSeconds::kCpu, transport_.rank()) = computed.CpuSecondsAfter(start);
    return absl::OkStatus();
  });

  // While that computes: the next step's plan and tokens.
  uint64_t next_hash = 0;
  if (next != nullptr) {
    absl::StatusOr<PreparedStep> prepared = Prepare();
    if (!prepared.ok()) return prepared.status();
    *next = *std::move(prepared);
    next_hash = next->plan_hash;
  }
  const bool stop = request_.stop_requested != nullptr && request_.stop_requested->load();
  std::array<double, RunCheckpoints::kVotes> save_votes{};
  checkpoints_->CastVotes(save_votes.data());

  const TensorView sums = TensorView::Of(sums_.data(), {static_cast<int64_t>(sums_.size())});
  auto reduction =
      std::make_unique<StreamSpan>(stream_, TraceLabel{"reduce gradients", TraceKind::kReduction});
  // Of the update before: until here nothing was to write there.
  const double adam_sum = figures_on_host()[kGradientStatistics];
  state_->ReduceGradients(figures(0, kGradientStatistics), stream_);
  figures_.ToHost(0, kGradientStatistics * SizeOf(DType::kF64), stream_);
  const Event figured = stream_.RunOnHost("step sums", [=, this] {
    std::copy(figures_on_host(), figures_on_host() + kGradientStatistics, sums_.begin());
    StepSumVector values{};
    WritePlanHash(next_hash, values);
    std::copy(values.begin() + kPlanHashSums, values.end(), sums_.begin() + kPlanHashSums);
    sums_[kLossSum] = *loss_sum;
    sums_[kStopVotesSum] = stop ? 1 : 0;
    std::copy(save_votes.begin(), save_votes.end(), sums_.begin() + kSaveVotesSum);
    sums_[kAdamSum] = adam_sum;
    return absl::OkStatus();
  });
  if (host_stream_.has_value()) host().WaitFor(figured);
  transport_.AllReduceSum(sums, host());
  reduction.reset();
  reduced.Queue(host());
  if (absl::Status status = SynchronizeBoth(); !status.ok()) return status;

  StepSumVector summed;
  std::copy(sums_.begin(), sums_.begin() + kStepSums, summed.begin());
  metrics.loss = summed[kLossSum] / static_cast<double>(targets);
  if (leader()) WarnUnless(norms_.RecordAdamSum(sums_[kAdamSum]));
  if (absl::Status status = Update(summed, targets, next == nullptr, metrics); !status.ok()) {
    return status;
  }
  if (leader()) WarnUnless(norms_.Record(run_.step, NormsOf(summed, targets), metrics, targets));
  if (metrics.skipped && config_.run.on_nonfinite == "stop")
    return NotFinite(current, NormsOf(summed, targets), metrics.loss);
  updated.Queue(stream_);
  if (absl::Status status = stream_.Synchronize(); !status.ok()) return status;
  if (absl::Status status = checkpoints_->UpdateDone(stream_, !metrics.skipped && metrics.rate > 0,
                                                     sums_.data() + kSaveVotesSum);
      !status.ok())
    return status;
  if (!PlanHashesAgree(summed, transport_.size())) {
    return MarkAgreed(absl::InternalError(
        absl::StrCat("step ", run_.step + 2,
                     ": the ranks made different plans; they must run the "
                     "same build of longspan with the same configuration and data")));
  }
  stop_agreed_ = summed[kStopVotesSum] > 0;

  ++run_.step;
  run_.tokens += targets;
  run_.cursor = current.after;
  if (run_.step == 1) run_.first_loss = metrics.loss;
  last_loss_ = metrics.loss;

  metrics.step = run_.step;
  metrics.attempt = checkpoints_->generation();
  metrics.tokens = targets;
  metrics.sequences = static_cast<int64_t>(current.sequences.size());
  for (int64_t length : current.plan.lengths) metrics.longest = std::max(metrics.longest, length);
  metrics.groups = static_cast<int64_t>(current.plan.groups.size());
  metrics.cost_version = current.cost_version;
  metrics.planned_gap = current.plan.certificate.gap;
  metrics.seconds = SecondsSince(begin);
  metrics.tokens_per_second = static_cast<double>(targets) / metrics.seconds;
  double flops = 0;
  for (int64_t length : current.plan.lengths) flops += run_.model.TrainingFlops(length);
  metrics.flops_per_second = flops / metrics.seconds;
  metrics.peak_share = metrics.flops_per_second / peak_flops_;
  const RankSeconds seconds = rank_seconds();
  metrics.busy_max_over_mean = seconds.MaxOverMean(RankSeconds::kBusy);
  metrics.cpu_max_over_mean = seconds.MaxOverMean(RankSeconds::kCpu);
  metrics.planned_makespan = current.plan.certificate.makespan_seconds;
  metrics.measured_makespan = seconds.Max(RankSeconds::kCompute);
  metrics.phase_seconds = {{"prepare_next", next != nullptr ? next->seconds : 0},
                           {"compute", computed.SecondsAfter(start)},
                           {"reduce", reduced.SecondsAfter(computed)},
                           {"update", updated.SecondsAfter(reduced)}};
  for (const MemoryTable::Row& row : device_.memory().Rows())
    metrics.memory_bytes[row.tag] = row.current_bytes;
  metrics.exchanged_bytes = transport_.exchanged_bytes() - exchanged_before;
  if (refit_ != nullptr) {
    std::vector<double> times;
    for (size_t i = 1; i < micro_batches.size(); ++i)
      times.push_back(micro_batches[i].SecondsAfter(micro_batches[i - 1]));
    refit_->Record(current.plan, transport_.rank(), times);
  }
  ++steps_done_;
  tokens_done_ += targets;
  training_seconds_ += metrics.seconds;
  seconds_a_step_ =
      steps_done_ == 1 ? metrics.seconds : 0.9 * seconds_a_step_ + 0.1 * metrics.seconds;
  Report(metrics);
  return absl::OkStatus();
}

void Trainer::Report(const StepMetrics& m) {
  if (!leader()) return;
  const bool keep = m.step % config_.metrics.every == 0 || m.step == config_.run.steps;
  if (keep) {
    WarnUnless(metrics_.Append(m));
  }
  if (m.skipped)
    log_->Warn(absl::StrFormat("step %d: %d gradient values are not finite; update skipped", m.step,
                               m.non_finite));
  const double left = seconds_a_step_ * static_cast<double>(config_.run.steps - m.step);
  log_->Progress(absl::StrFormat("step %*d/%d  loss %7.4f  rate %.2e  norm %7.3f  %6s tok/s  "
                                 "%3.0f%% of peak  balance %.2f  %s left",
                                 absl::StrCat(config_.run.steps).size(), m.step, config_.run.steps,
                                 m.loss, m.rate, m.gradient_norm, ShortCount(m.tokens_per_second),
                                 100 * m.peak_share, m.busy_max_over_mean, ShortTime(left)),
                 keep);
}

absl::Status Trainer::Evaluate() {
  if (evaluation_.tokens() == 0) return absl::OkStatus();
  const HostSpan span(device_, {"evaluate", TraceKind::kEvaluation});
  const Clock::time_point begin = Clock::now();
  absl::StatusOr<double> loss =
      evaluation_.Run(*model_, state_->weights(), transport_, ring_workspace_, stream_, host());
  if (!loss.ok()) return loss.status();
  validation_loss_ = *loss;
  if (!leader()) return absl::OkStatus();
  WarnUnless(metrics_.AppendEvaluation(run_.step, checkpoints_->generation(), validation_loss_,
                                       evaluation_.tokens(), SecondsSince(begin)));
  log_->Info(absl::StrFormat("validation after step %d: loss %.4f over %s targets", run_.step,
                             validation_loss_,
                             ShortCount(static_cast<double>(evaluation_.tokens()))));
  return absl::OkStatus();
}

absl::Status Trainer::RefitCost() {
  // PlanAhead has planned kDepth steps at most behind the one that was asked for last.
  const int64_t from_step = run_.step + PlanAhead::kDepth + 1;
  absl::StatusOr<CostRefitResult> fit = refit_->Fit(from_step, transport_);
  if (!fit.ok()) return fit.status();
  if (!fit->adopted.has_value()) return absl::OkStatus();
  plans_->ChangeCost(*fit->adopted);
  run_.costs.push_back(*fit->adopted);
  log_->Info(absl::StrFormat(
      "cost model %d from step %d on, fitted to %d micro-batches: median error %.1f%% (%.1f%% with "
      "the one before)",
      fit->adopted->version, fit->adopted->from_step + 1, fit->samples, 100 * fit->median_error,
      100 * fit->present_median_error));
  return absl::OkStatus();
}

absl::Status Trainer::Run() {
  const int64_t end = request_.stop_after > 0
                          ? std::min(config_.run.steps, run_.step + request_.stop_after)
                          : config_.run.steps;
  if (run_.step >= config_.run.steps) {
    log_->Info(
        absl::StrCat("nothing to do: the run already has its ", config_.run.steps, " steps"));
    return absl::OkStatus();
  }
  if (absl::Status status = trace_.Start(run_.step + 1, host(), *log_); !status.ok()) return status;
  absl::StatusOr<PlanRequest> request =
      PlanRequestOf(config_, run_.model, transport_.size(), transport_.ranks_on_node());
  if (!request.ok()) return request.status();
  if (config_.planner.cost == "refit") {
    refit_ = run_.costs.empty()
                 ? std::make_unique<CostRefit>(request->cost, 0)
                 : std::make_unique<CostRefit>(CostOf(run_.costs.back().units, request->cost),
                                               run_.costs.back().version);
  }
  plans_ =
      std::make_unique<PlanAhead>(*dataset_, *planner_, *std::move(request), config_.batch.tokens,
                                  run_.cursor, run_.step, end, run_.costs, device_.trace());
  absl::StatusOr<PreparedStep> current = Prepare();
  if (absl::Status status = Agree(transport_, current.status()); !status.ok()) return status;
  const int64_t evaluate = config_.metrics.evaluate_every;
  while (run_.step < end && !stop_agreed_) {
    if (absl::Status status = trace_.BeginStep(run_.step + 1, host(), *log_); !status.ok())
      return status;
    const HostSpan span(device_, {"step", TraceKind::kStep});
    PreparedStep next;
    const bool last = run_.step + 1 == end;
    const std::string when = absl::StrCat("step ", run_.step + 1);
    if (absl::Status status = Step(*current, last ? nullptr : &next); !status.ok())
      return FailureAt(when, device_, status);
    if (refit_ != nullptr && !last && refit_->Due()) {
      if (absl::Status status = RefitCost(); !status.ok()) return status;
    }
    if (evaluate > 0 && run_.step % evaluate == 0 && run_.step < config_.run.steps) {
      if (absl::Status status = Evaluate(); !status.ok())
        return FailureAt(absl::StrCat("validation after ", when), device_, status);
    }
    {
      const HostSpan save(device_, {"save checkpoint", TraceKind::kCheckpoint});
      if (absl::Status status = checkpoints_->SaveIfDue(run_, stream_); !status.ok())
        return FailureAt(absl::StrCat("save after ", when), device_, status);
    }
    *current = std::move(next);
  }
  if (absl::Status status =
          norms_.Finish(figures_on_host()[kGradientStatistics], transport_, host());
      !status.ok())
    return status;
  const bool complete = run_.step == config_.run.steps;
  if (complete) {
    if (absl::Status status = Evaluate(); !status.ok()) return status;
  }
  {
    const HostSpan span(device_, {"commit checkpoint", TraceKind::kCheckpoint});
    if (absl::Status status = checkpoints_->Finish(run_, stream_); !status.ok()) return status;
  }
  if (absl::Status status = trace_.Finish(host(), *log_); !status.ok()) return status;
  if (complete) {
    log_->Info(absl::StrFormat(
        "done: %d steps, loss %.4f -> %.4f%s, %s targets in %s here, %s tok/s", run_.step,
        run_.first_loss, last_loss_,
        std::isnan(validation_loss_) ? "" : absl::StrFormat(", validation %.4f", validation_loss_),
        ShortCount(static_cast<double>(tokens_done_)), ShortTime(training_seconds_),
        ShortCount(static_cast<double>(tokens_done_) / training_seconds_)));
  } else {
    log_->Info(absl::StrFormat("stopped after step %d of %d, state committed; continue with:\n  %s",
                               run_.step, config_.run.steps, request_.resume_command));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Train(const TrainRequest& request, Transport& transport, Device& device) {
  Trainer trainer(request, transport, device);
  absl::Status status = FailureAt("set-up", device, trainer.SetUp());
  if (status.ok()) status = trainer.Run();
  if (!status.ok() && !IsAgreed(status)) {
    // Before the trainer's stream ends: it may hold work that waits for other ranks.
    if (request.on_fatal) request.on_fatal(transport.rank(), status);
    transport.Abort(std::string(status.message()));
  } else if (!status.ok()) {
    trainer.KeepSaves();
  }
  return status;
}

}  // namespace longspan
