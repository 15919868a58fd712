#include "kernels/device/stream.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "kernels/device/check.h"
#include "kernels/device/stream_state.h"

namespace longspan {

struct Event::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<absl::Status> outcome;
  std::vector<std::function<void(const absl::Status&)>> callbacks;
};

bool Event::Done() const {
  if (state_ == nullptr) return true;
  std::lock_guard lock(state_->mutex);
  return state_->outcome.has_value();
}

absl::Status Event::Wait() const {
  if (state_ == nullptr) return absl::OkStatus();
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->outcome.has_value(); });
  return *state_->outcome;
}

absl::Status Event::WaitFor(absl::Duration timeout) const {
  if (state_ == nullptr) return absl::OkStatus();
  std::unique_lock lock(state_->mutex);
  if (!state_->changed.wait_for(lock, absl::ToChronoNanoseconds(timeout),
                                [&] { return state_->outcome.has_value(); })) {
    return absl::DeadlineExceededError("an event was not done within " +
                                       absl::FormatDuration(timeout));
  }
  return *state_->outcome;
}

void Event::OnDone(std::function<void(const absl::Status&)> callback) const {
  if (state_ != nullptr) {
    std::lock_guard lock(state_->mutex);
    if (!state_->outcome.has_value()) {
      state_->callbacks.push_back(std::move(callback));
      return;
    }
  }
  callback(Wait());
}

EventPromise::EventPromise() { event_.state_ = std::make_shared<Event::State>(); }

EventPromise::~EventPromise() {
  if (event_.state_ != nullptr && !completed_)
    Complete(absl::CancelledError("the work behind an event was dropped"));
}

EventPromise& EventPromise::operator=(EventPromise&& other) noexcept {
  if (this == &other) return *this;
  if (event_.state_ != nullptr && !completed_)
    Complete(absl::CancelledError("the work behind an event was dropped"));
  event_ = std::move(other.event_);
  completed_ = other.completed_;
  return *this;
}

void EventPromise::Complete(absl::Status status) {
  LONGSPAN_CHECK(event_.state_ != nullptr && !completed_, "an event completes once");
  completed_ = true;
  Event::State& state = *event_.state_;
  std::vector<std::function<void(const absl::Status&)>> callbacks;
  {
    std::lock_guard lock(state.mutex);
    state.outcome = status;
    callbacks.swap(state.callbacks);
    state.changed.notify_all();
  }
  for (auto& callback : callbacks) callback(status);
}

Event WhenAll(const std::vector<Event>& events) {
  struct All {
    std::mutex mutex;
    size_t left;
    absl::Status outcome;
    EventPromise promise;
  };
  auto all = std::make_shared<All>();
  all->left = events.size() + 1;  // one for this call
  const Event event = all->promise.event();
  const auto ended = [all](const absl::Status& status) {
    {
      const std::lock_guard lock(all->mutex);
      all->outcome.Update(status);
      if (--all->left > 0) return;
    }
    all->promise.Complete(all->outcome);
  };
  for (const Event& each : events) each.OnDone(ended);
  ended(absl::OkStatus());
  return event;
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
