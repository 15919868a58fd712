#include "kernels/device/stream.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "kernels/device/check.h"
#include "kernels/device/stream_state.h"

namespace longspan {

bool Event::Done() const { return state_ == nullptr || state_->Done(); }

absl::Status Event::Wait() const { return state_ == nullptr ? absl::OkStatus() : state_->Wait(); }

absl::Status Event::WaitFor(absl::Duration timeout) const {
  if (state_ == nullptr) return absl::OkStatus();
  std::optional<absl::Status> outcome = state_->WaitFor(timeout);
  if (outcome.has_value()) return *std::move(outcome);
  return absl::DeadlineExceededError("an event was not done within " +
                                     absl::FormatDuration(timeout));
}

void Event::OnDone(std::function<void(const absl::Status&)> callback) const {
  if (state_ == nullptr) return callback(absl::OkStatus());
  state_->OnDone(std::move(callback));
}

bool PromisedEvent::Done() {
  Event other;
  {
    const std::lock_guard lock(mutex_);
    if (!other_.has_value()) return outcome_.has_value();
    other = *other_;
  }
  return other.Done();
}

absl::Status PromisedEvent::Wait() {
  Event other;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return decided(); });
    if (outcome_.has_value()) return *outcome_;
    other = *other_;
  }
  return other.Wait();
}

std::optional<absl::Status> PromisedEvent::WaitFor(absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  Event other;
  {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [&] { return decided(); }))
      return std::nullopt;
    if (outcome_.has_value()) return *outcome_;
    other = *other_;
  }
  if (other.state() == nullptr) return absl::OkStatus();
  return other.state()->WaitFor(std::max(end - absl::Now(), absl::ZeroDuration()));
}

void PromisedEvent::OnDone(std::function<void(const absl::Status&)> callback) {
  WhenDecided([this, callback = std::move(callback)](const Event* other) {
    if (other != nullptr) return other->OnDone(callback);
    callback(Wait());
  });
}

void PromisedEvent::Decide(absl::Status status) {
  {
    const std::lock_guard lock(mutex_);
    outcome_ = std::move(status);
  }
  Tell();
}

void PromisedEvent::Decide(const Event& other) {
  {
    const std::lock_guard lock(mutex_);
    other_ = other;
  }
  Tell();
}

void PromisedEvent::Tell() {
  std::vector<std::function<void(const Event*)>> callbacks;
  {
    const std::lock_guard lock(mutex_);
    callbacks.swap(callbacks_);
    changed_.notify_all();
  }
  // What is decided stays.
  for (auto& callback : callbacks) callback(other_.has_value() ? &*other_ : nullptr);
}

void PromisedEvent::WhenDecided(std::function<void(const Event* other)> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!decided()) {
      callbacks_.push_back(std::move(callback));
      return;
    }
  }
  callback(other_.has_value() ? &*other_ : nullptr);
}

bool PromisedEvent::DecidedBy(Event* other) {
  const std::lock_guard lock(mutex_);
  *other = other_.value_or(Event());
  return decided();
}

bool AllEvents::Done() {
  return std::all_of(events.begin(), events.end(), [](const Event& each) { return each.Done(); });
}

absl::Status AllEvents::Wait() {
  absl::Status outcome;
  for (const Event& each : events) outcome.Update(each.Wait());
  return outcome;
}

std::optional<absl::Status> AllEvents::WaitFor(absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  absl::Status outcome;
  for (const Event& each : events) {
    std::optional<absl::Status> one =
        each.state()->WaitFor(std::max(end - absl::Now(), absl::ZeroDuration()));
    if (!one.has_value()) return std::nullopt;
    outcome.Update(*one);
  }
  return outcome;
}

void AllEvents::OnDone(std::function<void(const absl::Status&)> callback) {
  struct Left {
    std::atomic<size_t> count;
    std::vector<Event> events;
    std::function<void(const absl::Status&)> callback;
  };
  const auto left = std::make_shared<Left>();
  left->count = events.size();
  left->events = events;
  left->callback = std::move(callback);
  const auto ended = [left](const absl::Status&) {
    if (--left->count > 0) return;
    absl::Status outcome;
    for (const Event& each : left->events) outcome.Update(each.Wait());
    left->callback(outcome);
  };
  for (const Event& each : left->events) each.OnDone(ended);
}

Event WhenAll(const std::vector<Event>& events) {
  std::vector<Event> all;
  for (const Event& each : events) {
    if (each.state() != nullptr) all.push_back(each);
  }
  if (all.empty()) return Event();
  return all.size() == 1 ? all[0] : Event(std::make_shared<AllEvents>(std::move(all)));
}

EventPromise::EventPromise() : state_(std::make_shared<PromisedEvent>()) {}

EventPromise::~EventPromise() {
  if (state_ != nullptr && !completed_)
    Complete(absl::CancelledError("the work behind an event was dropped"));
}

EventPromise& EventPromise::operator=(EventPromise&& other) noexcept {
  if (this == &other) return *this;
  if (state_ != nullptr && !completed_)
    Complete(absl::CancelledError("the work behind an event was dropped"));
  state_ = std::move(other.state_);
  completed_ = other.completed_;
  return *this;
}

Event EventPromise::event() const { return Event(state_); }

void EventPromise::Complete(absl::Status status) {
  LONGSPAN_CHECK(state_ != nullptr && !completed_, "an event completes once");
  completed_ = true;
  // Whoever sees the event done may destroy this.
  const std::shared_ptr<PromisedEvent> state = state_;
  state->Decide(std::move(status));
}

void EventPromise::CompleteWith(const Event& event) {
  LONGSPAN_CHECK(state_ != nullptr && !completed_, "an event completes once");
  completed_ = true;
  const std::shared_ptr<PromisedEvent> state = state_;
  state->Decide(event);
}

Stream::Stream(std::unique_ptr<State> state) : state_(std::move(state)) {}
Stream::Stream(Stream&&) noexcept = default;
Stream& Stream::operator=(Stream&&) noexcept = default;
Stream::~Stream() = default;

Device& Stream::device() const { return state_->device; }
DeviceKind Stream::kind() const { return state_->device.kind(); }

void Stream::Launch(const char* name, std::function<void()> body) {
  state_->Launch(name, [body = std::move(body)] {
    body();
    return absl::OkStatus();
  });
}

void Stream::LaunchFallible(const char* name, std::function<absl::Status()> body) {
  state_->Launch(name, std::move(body));
}

Event Stream::RunOnHost(const char* name, std::function<absl::Status()> body) {
  return state_->RunOnHost(name, std::move(body));
}
void Stream::CopyBytes(const void* from, void* to, int64_t bytes) {
  if (bytes > 0) state_->CopyBytes(from, to, bytes);
}
Event Stream::Record() { return state_->Record(); }
void Stream::WaitFor(const Event& event) { state_->WaitFor(event); }
absl::Status Stream::Synchronize() { return state_->Synchronize(); }
std::string Stream::Current() const { return state_->Current(); }
void Stream::Fail(const absl::Status& status) { state_->Fail(status); }
std::function<void(const absl::Status&)> Stream::Failer() const { return state_->Failer(); }
double Stream::waited_seconds() const { return state_->waited_seconds(); }
void Stream::BeginSpan(const TraceLabel& label) {
  state_->spans.push_back(state_->spans.empty() ? label : label.Within(state_->spans.back()));
  state_->BeginSpan(state_->spans.back());
}
void Stream::EndSpan() {
  LONGSPAN_CHECK(!state_->spans.empty(), "no span of this stream is open");
  state_->spans.pop_back();
  state_->EndSpan();
}
TraceLabel Stream::span() const {
  return state_->spans.empty() ? TraceLabel() : state_->spans.back();
}
void* Stream::KeptFor(const void* owner, const std::function<std::shared_ptr<void>()>& make) {
  const std::lock_guard lock(state_->kept_mutex);
  std::shared_ptr<void>& kept = state_->kept[owner];
  if (kept == nullptr) kept = make();
  return kept.get();
}
void* Stream::native() const { return state_->native(); }

void* Device::OperatorState(const std::function<std::shared_ptr<void>()>& make) {
  std::call_once(operator_state_made_, [&] { operator_state_ = make(); });
  return operator_state_.get();
}

}  // namespace longspan
