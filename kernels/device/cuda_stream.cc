#include "kernels/device/cuda_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/device/check.h"
#include "kernels/device/cuda_status.h"

namespace longspan {

CudaClock::~CudaClock() {
  if (stream_ == nullptr) return;
  (void)cudaSetDevice(index_);
  (void)cudaStreamDestroy(stream_);
}

std::shared_ptr<const CudaClock::Anchor> CudaClock::anchor() {
  const std::lock_guard lock(mutex_);
  if (anchor_ == nullptr) anchor_ = Measure();
  return anchor_;
}

void CudaClock::Renew() {
  const std::lock_guard lock(mutex_);
  anchor_ = Measure();
}

std::shared_ptr<const CudaClock::Anchor> CudaClock::Measure() {
  constexpr int kTries = 8;  // the quickest answer is the most exact
  (void)cudaSetDevice(index_);
  if (stream_ == nullptr) (void)cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
  // Without an event where the GPU is lost: then there is nothing to be timed either.
  auto best = std::make_shared<Anchor>();
  int64_t quickest = INT64_MAX;
  for (int i = 0; i < kTries && stream_ != nullptr; ++i) {
    absl::StatusOr<CudaEvent> event = timed_->Take();
    if (!event.ok()) break;
    const int64_t asked = TraceClock();
    cudaError_t error = cudaEventRecord(event->get(), stream_);
    if (error == cudaSuccess) error = cudaEventSynchronize(event->get());
    const int64_t took = TraceClock() - asked;
    if (error != cudaSuccess) (void)cudaGetLastError();
    if (error != cudaSuccess || took >= quickest) continue;
    quickest = took;
    *best = {*std::move(event), asked + took / 2};
  }
  return best;
}

CudaStreamState::CudaStreamState(Device& owner, CudaStreams& shared, const std::string& label,
                                 StreamPriority priority)
    : State(owner),
      streams(shared),
      name(label),
      words(std::make_shared<WaitWords>(shared.memory)) {
  int lowest = 0, highest = 0;
  absl::Status made = CudaStatus(cudaSetDevice(streams.index), "cudaSetDevice");
  if (made.ok()) {
    made = CudaStatus(cudaDeviceGetStreamPriorityRange(&lowest, &highest),
                      "cudaDeviceGetStreamPriorityRange");
  }
  // Smaller numbers go first, and what nobody asked for is the lowest.
  const int normal = std::max(highest, lowest - 1);
  if (made.ok()) {
    made =
        CudaStatus(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                                priority == StreamPriority::kLow ? lowest : normal),
                   "cudaStreamCreateWithPriority");
  }
  core = std::make_shared<CudaStreamCore>(owner, streams.index, stream, streams.words,
                                          streams.points, name);
  if (!made.ok()) core->Fail(made);
  const std::lock_guard lock(streams.mutex);
  streams.alive.insert(this);
}

CudaStreamState::~CudaStreamState() {
  worker.reset();  // waits for what it was given, as for all that is queued
  (void)cudaSetDevice(streams.index);
  if (stream != nullptr) (void)cudaStreamSynchronize(stream);
  words->Close();
  core->Close();
  {
    const std::lock_guard lock(streams.mutex);
    streams.alive.erase(this);
  }
  if (TraceRecorder* trace = device.trace().get()) CollectTrace(*trace);
  if (stream != nullptr) (void)cudaStreamDestroy(stream);
}

void CudaStreamState::Launch(const char* work, std::function<absl::Status()>) {
  const std::string message = absl::StrCat("no CUDA body for '", work, "'");
  LONGSPAN_CHECK(false, message.c_str());
}

Event CudaStreamState::RunOnHost(const char* work, std::function<absl::Status()> body) {
  // The two go together: what is recorded here belongs to this body.
  const std::lock_guard lock(worker_mutex);
  if (worker == nullptr) worker = MakeWorker(device, name + " host");
  worker->WaitFor(Record());
  return worker->RunOnHost(work, [index = streams.index, body = std::move(body)] {
    (void)cudaSetDevice(index);
    return body();
  });
}

void CudaStreamState::CopyBytes(const void* from, void* to, int64_t bytes) {
  if (stream == nullptr) return;
  (void)cudaSetDevice(streams.index);
  const bool traced = RecorderOf(device) != nullptr;
  const TimedPoint begin = traced ? Time() : TimedPoint();
  const absl::Status status =
      CudaStatus(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream),
                 "cudaMemcpyAsync");
  if (!status.ok()) core->Fail(status);
  if (traced) AddSpan({"copy", TraceKind::kKernel}, begin, Time());
}

void CudaStreamState::WaitFor(const Event& event) {
  if (stream == nullptr) return;
  if (event.Done()) {
    if (const absl::Status outcome = event.Wait(); !outcome.ok()) core->Fail(outcome);
    return;
  }
  (void)cudaSetDevice(streams.index);
  core->AddWait(event);
  const TimedPoint begin = Time();
  Await(event);
  const TimedPoint end = Time();
  {
    const std::lock_guard lock(mutex);
    CountWaits();
    waits.push_back({begin.event, end.event});
  }
  if (RecorderOf(device) != nullptr) AddSpan({"wait", TraceKind::kWait}, begin, end);
}

void CudaStreamState::Await(const Event& event) {
  Event::State* const state = event.state().get();
  if (const auto* const all = dynamic_cast<AllEvents*>(state)) {
    for (const Event& each : all->events) Await(each);
  } else if (const auto* const point = dynamic_cast<CudaPoint*>(state)) {
    if (point->core == core) return;  // in order already
    const absl::Status status =
        CudaStatus(cudaStreamWaitEvent(stream, point->event.get(), 0), "cudaStreamWaitEvent");
    if (!status.ok()) core->Fail(status);
  } else if (state != nullptr && !state->Done()) {
    AwaitWord(event);
  }
}

void CudaStreamState::AwaitWord(const Event& event) {
  auto* const promised = dynamic_cast<PromisedEvent*>(event.state().get());
  Event known;
  if (promised != nullptr && promised->DecidedBy(&known)) return Await(known);
  const WaitWords::Wait wait = words->Take();
  if (wait.word == nullptr)
    return core->Fail(absl::ResourceExhaustedError("no pinned memory for a stream"));
  const CUresult result = streams.words.wait(stream, reinterpret_cast<CUdeviceptr>(wait.word),
                                             wait.value, CU_STREAM_WAIT_VALUE_GEQ);
  if (result != CUDA_SUCCESS) {
    core->Fail(absl::InternalError(
        absl::StrCat("CUDA: cuStreamWaitValue32: error ", static_cast<int>(result))));
  }
  const auto by_host = [words = words, wait](const absl::Status&) { words->Raise(wait); };
  if (promised == nullptr) return event.OnDone(by_host);
  promised->WhenDecided([words = words, wait, by_host](const Event* other) {
    if (other == nullptr) return words->Raise(wait);
    const auto* const point = dynamic_cast<CudaPoint*>(other->state().get());
    if (point == nullptr) return other->OnDone(by_host);
    const std::optional<Event> raised = point->core->Write(wait.word, wait.value);
    if (raised.has_value()) return words->RaiseAfter(wait, *raised);
    words->Raise(wait);
  });
}

absl::Status CudaStreamState::Synchronize() {
  if (stream == nullptr) return core->Failure();
  (void)cudaSetDevice(streams.index);
  const absl::Status status = CudaStatus(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  if (!status.ok()) core->Fail(status);
  Event on_host;
  {
    const std::lock_guard lock(worker_mutex);
    if (worker != nullptr) on_host = worker->Record();
  }
  (void)on_host.Wait();
  const std::lock_guard lock(mutex);
  if (!spans_ended.empty()) {
    const int64_t now = TraceClock();
    for (Span& span : spans_ended) {
      for (TimedPoint* point : {&span.begin, &span.end}) {
        point->passed_by_ns = std::min(point->passed_by_ns, now);
      }
    }
  }
  return core->Failure();
}

double CudaStreamState::waited_seconds() const {
  const std::lock_guard lock(mutex);
  CountWaits();
  return waited;
}

void CudaStreamState::CountWaits() const {
  while (!waits.empty()) {
    float milliseconds = 0;
    const TimedWait& wait = waits.front();
    const cudaError_t error =
        wait.begin == nullptr || wait.end == nullptr
            ? cudaErrorInvalidResourceHandle
            : cudaEventElapsedTime(&milliseconds, wait.begin.get(), wait.end.get());
    if (error != cudaSuccess) (void)cudaGetLastError();
    if (error == cudaErrorNotReady) return;
    waited += 1e-3 * static_cast<double>(milliseconds);
    waits.pop_front();
  }
}

std::string CudaStreamState::Current() const {
  if (stream == nullptr) return "";
  const cudaError_t state = cudaStreamQuery(stream);
  if (state != cudaSuccess) (void)cudaGetLastError();
  return state == cudaErrorNotReady ? "CUDA work" : "";
}

// Whoever asks for the handle is about to launch: a launch needs the stream's device to be current
// on its thread. Where that fails, a kernel has gone wrong, and launches fail too.
void* CudaStreamState::native() const {
  const absl::Status status = CudaStatus(cudaSetDevice(streams.index), "cudaSetDevice");
  if (!status.ok()) core->Fail(status);
  return stream;
}

TimedPoint CudaStreamState::Time() {
  TimedPoint point{.launched_ns = TraceClock()};
  absl::StatusOr<CudaEvent> event = streams.timed->Take();
  if (!event.ok() || stream == nullptr) return point;
  point.event = *std::move(event);
  const absl::Status status =
      CudaStatus(cudaEventRecord(point.event.get(), stream), "cudaEventRecord");
  if (!status.ok()) core->Fail(status);
  return point;
}

void CudaStreamState::BeginSpan(const TraceLabel& label) {
  (void)cudaSetDevice(streams.index);
  (void)streams.clock.anchor();  // before the stream gets there
  OpenSpan span{label, Time()};
  if (const TraceRecorder* trace = device.trace().get(); trace != nullptr && label.step < 0)
    span.label.step = trace->step();
  const std::lock_guard lock(mutex);
  open.push_back(std::move(span));
}

void CudaStreamState::EndSpan() {
  (void)cudaSetDevice(streams.index);
  const TimedPoint end = Time();
  OpenSpan span;
  {
    const std::lock_guard lock(mutex);
    span = std::move(open.back());
    open.pop_back();
  }
  AddSpan(span.label, span.begin, end);
}

void CudaStreamState::AddSpan(TraceLabel label, TimedPoint begin, TimedPoint end) {
  std::shared_ptr<const CudaClock::Anchor> anchor = streams.clock.anchor();
  if (const TraceRecorder* trace = device.trace().get(); trace != nullptr && label.step < 0)
    label.step = trace->step();
  const std::lock_guard lock(mutex);
  if (!open.empty()) label = label.Within(open.back().label);
  spans_ended.push_back({label, std::move(begin), std::move(end), std::move(anchor)});
}

int64_t CudaStreamState::PassedAt(const TimedPoint& point, const CudaClock::Anchor& anchor) {
  float milliseconds = 0;
  if (anchor.event == nullptr ||
      cudaEventElapsedTime(&milliseconds, anchor.event.get(), point.event.get()) != cudaSuccess) {
    (void)cudaGetLastError();
    return point.launched_ns;
  }
  const int64_t at = anchor.ns + static_cast<int64_t>(1e6 * static_cast<double>(milliseconds));
  // Both borders rise along the stream, so that what nests still does.
  return std::min(std::max(at, point.launched_ns), point.passed_by_ns);
}

void CudaStreamState::CollectTrace(TraceRecorder& recorder) {
  (void)cudaSetDevice(streams.index);
  const std::lock_guard lock(mutex);
  const int row = spans_ended.empty() ? 0 : recorder.RowOf(name);
  while (!spans_ended.empty()) {
    const Span& span = spans_ended.front();
    const cudaError_t state = span.begin.event == nullptr || span.end.event == nullptr
                                  ? cudaErrorInvalidResourceHandle
                                  : cudaEventQuery(span.end.event.get());
    if (state != cudaSuccess) (void)cudaGetLastError();
    if (state == cudaErrorNotReady) return;
    if (state == cudaSuccess) {
      recorder.Record(span.label, row, PassedAt(span.begin, *span.anchor),
                      PassedAt(span.end, *span.anchor));
    }
    spans_ended.pop_front();
  }
}

}  // namespace longspan
