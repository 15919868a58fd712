#include "runtime/trace/run_trace.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/trace/clock_offset.h"
#include "runtime/train/agreement.h"

namespace longspan {
namespace {

constexpr int64_t kEventsOfAllRanks = 2'000'000, kMostEvents = 500'000, kFewestEvents = 20'000;

int64_t EventsARank(int ranks) {
  return std::clamp(kEventsOfAllRanks / ranks, kFewestEvents, kMostEvents);
}

}  // namespace

RunTrace::RunTrace(const TraceOptions& options, Transport& transport, Device& device)
    : options_(options), transport_(transport), device_(device) {
  if (options_.file.empty()) return;
  recorder_ = std::make_shared<TraceRecorder>(EventsARank(transport.size()));
  device_.set_trace(recorder_);
}

RunTrace::~RunTrace() {
  // The recorder itself stays with the device: an event of an exchange may still find it.
  if (device_.trace() != nullptr) device_.trace()->Pause();
}

absl::StatusOr<int64_t> RunTrace::OffsetOf(Stream& stream) {
  // Processes of one node share the steady clock.
  if (transport_.ranks_on_node() == transport_.size()) return 0;
  return ClockOffset(transport_, stream, TraceClock);
}

absl::Status RunTrace::Start(int64_t next_step, Stream& stream, RunLog& log) {
  if (recorder_ == nullptr) return absl::OkStatus();
  const auto local = [&]() -> absl::Status {
    if (options_.to_step == 0) {
      options_.from_step = next_step;
      options_.to_step = next_step + TraceOptions::kDefaultSteps - 1;
    }
    if (options_.to_step < next_step) {
      return absl::InvalidArgumentError(absl::StrCat("--trace-steps ", options_.from_step, ":",
                                                     options_.to_step, ": the next step is ",
                                                     next_step));
    }
    if (transport_.rank() != 0) return absl::OkStatus();
    absl::StatusOr<std::unique_ptr<TraceFile>> file = TraceFile::Create(options_.file);
    if (!file.ok()) return file.status();
    file_ = *std::move(file);
    return absl::OkStatus();
  };
  if (absl::Status status = Agree(transport_, local()); !status.ok()) return status;
  absl::StatusOr<int64_t> offset = OffsetOf(stream);
  if (!offset.ok()) return offset.status();
  start_offset_ns_ = *offset;
  started_ns_ = TraceClock();
  const std::string zero(reinterpret_cast<const char*>(&started_ns_), sizeof(started_ns_));
  absl::StatusOr<std::string> shared = transport_.BroadcastBytes(zero, 0);
  if (!shared.ok()) return shared.status();
  std::memcpy(&zero_ns_, shared->data(), sizeof(zero_ns_));
  log.Info(absl::StrCat("trace: of steps ", std::max(options_.from_step, next_step), " to ",
                        options_.to_step, " (--trace-steps FROM:TO chooses), to ", options_.file));
  return absl::OkStatus();
}

absl::Status RunTrace::BeginStep(int64_t step, Stream& stream, RunLog& log) {
  if (recorder_ == nullptr) return absl::OkStatus();
  if (step > options_.to_step) return Write(stream, log);
  if (step < options_.from_step) return absl::OkStatus();
  device_.CollectTrace();  // of the step before; and the device's clock is new for this one
  if (first_step_ == 0) first_step_ = step;
  last_step_ = step;
  recorder_->set_step(step);
  recorder_->Resume();
  return absl::OkStatus();
}

absl::Status RunTrace::Finish(Stream& stream, RunLog& log) {
  return recorder_ == nullptr ? absl::OkStatus() : Write(stream, log);
}

absl::Status RunTrace::Write(Stream& stream, RunLog& log) {
  const std::shared_ptr<TraceRecorder> recorder = std::exchange(recorder_, nullptr);
  device_.CollectTrace();
  recorder->Pause();
  if (first_step_ == 0) {
    log.Warn(absl::StrCat("trace: none of the steps ", options_.from_step, " to ", options_.to_step,
                          " was run, so there is nothing to write"));
    file_.reset();
    return absl::OkStatus();
  }
  const absl::StatusOr<int64_t> end_offset = OffsetOf(stream);
  if (!end_offset.ok()) return end_offset.status();
  const int64_t ended_ns = TraceClock();
  RankTimeline mine = RankTimeline::Of(transport_.rank(), *recorder);
  // Clocks drift, by seconds a day: between the two measurements the offset is taken as linear.
  const double drift = static_cast<double>(*end_offset - start_offset_ns_) /
                       static_cast<double>(std::max<int64_t>(ended_ns - started_ns_, 1));
  const auto aligned = [&](int64_t ns) {
    return ns + start_offset_ns_ +
           static_cast<int64_t>(drift * static_cast<double>(ns - started_ns_));
  };
  for (RankTimeline::Span& span : mine.spans) {
    span.begin_ns = aligned(span.begin_ns);
    span.end_ns = aligned(span.end_ns);
  }
  int64_t dropped = 0;
  for (int rank = 0; rank < transport_.size(); ++rank) {
    absl::StatusOr<std::string> bytes =
        transport_.BroadcastBytes(rank == transport_.rank() ? mine.Encode() : std::string(), rank);
    if (!bytes.ok()) return bytes.status();
    if (file_ == nullptr) continue;
    absl::StatusOr<RankTimeline> timeline = RankTimeline::Decode(*bytes);
    if (!timeline.ok()) return timeline.status();
    dropped += timeline->dropped;
    file_->Add(*std::move(timeline), zero_ns_);
  }
  if (file_ == nullptr) return absl::OkStatus();
  const int64_t spans = file_->spans();
  const absl::StatusOr<int64_t> size = file_->Close(first_step_, last_step_);
  file_.reset();
  if (!size.ok()) {
    log.Warn(std::string(size.status().message()));
    return absl::OkStatus();
  }
  log.Info(absl::StrCat("trace: steps ", first_step_, " to ", last_step_, ", ", spans, " events, ",
                        ShortBytes(static_cast<double>(*size)), ": ", options_.file,
                        "; open it in ui.perfetto.dev, or: longspan trace summary ",
                        options_.file));
  if (dropped > 0) {
    log.Warn(absl::StrCat("trace: ", dropped,
                          " events did not fit and are left out, operators first; trace fewer "
                          "steps with --trace-steps FROM:TO"));
  }
  return absl::OkStatus();
}

}  // namespace longspan
