#include "parallel/transport/in_process_messages.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace longspan {

InProcessMessages::InProcessMessages(int ranks, const InProcessOptions& options)
    : ranks_(ranks),
      options_(options),
      channels_(static_cast<size_t>(ranks) * ranks),
      gone_(ranks, false),
      delivering_(ranks, 0),
      random_(options.seed) {
  if (options_.max_delay > absl::ZeroDuration())
    postman_ = std::thread([this] { DeliverDelayed(); });
}

InProcessMessages::~InProcessMessages() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  delayed_changed_.notify_all();
  if (postman_.joinable()) postman_.join();
}

void InProcessMessages::Finish(const std::shared_ptr<Operation>& operation,
                               const absl::Status& status, const Event& delivered) {
  if (operation == nullptr) return;
  {
    std::lock_guard lock(operation->mutex);
    operation->status.Update(status);
    if (delivered.state() != nullptr) operation->delivered.push_back(delivered);
    if (--operation->outstanding > 0) return;
  }
  const std::vector<Event>& events = operation->delivered;
  if (events.empty()) return operation->promise.Complete(operation->status);
  if (!operation->status.ok()) {
    return WhenAll(events).OnDone(
        [operation](const absl::Status&) { operation->promise.Complete(operation->status); });
  }
  // Whoever waits for the exchange waits for one point of one stream.
  if (events.size() == 1) return operation->promise.CompleteWith(events[0]);
  operation->copies->WaitFor(WhenAll(events));
  operation->promise.CompleteWith(operation->copies->Record());
}

void InProcessMessages::Deliver(Match& match) {
  absl::Status status;
  Event delivered;
  if (match.send.bytes == match.receive.bytes) {
    Stream* const copies = match.receive.copies;
    if (match.send.operation != nullptr && copies != nullptr) {
      copies->CopyBytes(match.send.data, match.receive.data, match.send.bytes);
      delivered = copies->Record();
    } else {
      const void* source = match.send.operation ? match.send.data : match.send.buffered.data();
      status = match.receive.device->CopyNow(source, match.receive.data, match.send.bytes);
    }
  } else {
    status = absl::InvalidArgumentError(
        absl::StrCat("exchange: rank ", match.source, " sends ", match.send.bytes,
                     " bytes, but rank ", match.destination, " receives ", match.receive.bytes,
                     " from it: the ranks disagree about their plan"));
  }
  Finish(match.send.operation, status, delivered);
  Finish(match.receive.operation, status, delivered);
  const std::lock_guard lock(mutex_);
  --delivering_[match.source];
  --delivering_[match.destination];
  delivered_.notify_all();
}

InProcessMessages::Match InProcessMessages::Matched(int source, int destination, Side send,
                                                    Side receive) {
  ++delivering_[source];
  ++delivering_[destination];
  return {source, destination, std::move(send), std::move(receive)};
}

absl::Status InProcessMessages::FailureWith(int peer) const {
  if (!failure_.ok()) return failure_;
  return absl::UnavailableError(absl::StrCat("exchange: rank ", peer, " has left the job"));
}

void InProcessMessages::PostReceive(int rank, int peer, Side side, std::vector<Match>& matches,
                                    std::vector<Side>& failed) {
  Channel& from = channel(peer, rank);
  if (failure_.ok() && !from.sends.empty()) {
    matches.push_back(Matched(peer, rank, std::move(from.sends.front()), std::move(side)));
    from.sends.pop_front();
  } else if (!failure_.ok() || gone_[peer]) {
    failed.push_back(std::move(side));
  } else {
    from.receives.push_back(std::move(side));
  }
}

void InProcessMessages::PostSend(int rank, int peer, Side side, std::vector<Match>& matches,
                                 std::vector<Side>& failed) {
  Channel& to = channel(rank, peer);
  if (!failure_.ok() || gone_[peer]) {
    failed.push_back(std::move(side));
  } else if (!to.receives.empty()) {
    matches.push_back(Matched(rank, peer, std::move(side), std::move(to.receives.front())));
    to.receives.pop_front();
  } else if (side.bytes <= options_.eager_bytes) {
    side.buffered.resize(side.bytes);
    const absl::Status copied = side.device->CopyNow(side.data, side.buffered.data(), side.bytes);
    // Not the last hold: Post has one until it is through.
    const std::shared_ptr<Operation> operation = std::move(side.operation);
    side.operation = nullptr;
    std::lock_guard lock(operation->mutex);
    operation->status.Update(copied);
    --operation->outstanding;
    to.sends.push_back(std::move(side));
  } else {
    to.sends.push_back(std::move(side));
  }
}

void InProcessMessages::Post(int rank, const std::vector<Message>& sends,
                             const std::vector<Message>& receives, Device& device, Stream* copies,
                             EventPromise promise) {
  auto operation = std::make_shared<Operation>();
  operation->copies = copies;
  operation->promise = std::move(promise);
  std::vector<Match> matches;
  std::vector<Side> failed;
  absl::Status failure;
  const auto side_of = [&](const Message& message) {
    std::lock_guard hold(operation->mutex);
    ++operation->outstanding;
    return Side{operation, message.tensor.raw(), message.tensor.bytes(), {}, &device, copies};
  };
  {
    std::lock_guard lock(mutex_);
    for (const Message& message : receives) {
      if (message.tensor.empty()) continue;
      PostReceive(rank, message.peer, side_of(message), matches, failed);
      if (!failed.empty() && failure.ok()) failure = FailureWith(message.peer);
    }
    for (const Message& message : sends) {
      if (message.tensor.empty()) continue;
      PostSend(rank, message.peer, side_of(message), matches, failed);
      if (!failed.empty() && failure.ok()) failure = FailureWith(message.peer);
    }
    if (!failure_.ok()) failure = failure_;  // also of an exchange without messages
    if (postman_.joinable() && !matches.empty()) {
      for (Match& match : matches) {
        const absl::Duration delay =
            options_.max_delay * std::uniform_real_distribution<double>(0, 1)(random_);
        delayed_.emplace(Clock::now() + absl::ToChronoNanoseconds(delay), std::move(match));
      }
      matches.clear();
      delayed_changed_.notify_all();
    }
  }
  for (Match& match : matches) Deliver(match);
  for (Side& side : failed) Finish(side.operation, failure);
  Finish(operation, failure);
}

void InProcessMessages::DeliverDelayed() {
  std::unique_lock lock(mutex_);
  while (true) {
    if (delayed_.empty()) {
      if (stop_) return;
      delayed_changed_.wait(lock);
      continue;
    }
    const Clock::time_point due = delayed_.begin()->first;
    if (!stop_ && Clock::now() < due) {
      delayed_changed_.wait_until(lock, due);
      continue;
    }
    Match match = std::move(delayed_.begin()->second);
    delayed_.erase(delayed_.begin());
    lock.unlock();
    Deliver(match);
    lock.lock();
  }
}

void InProcessMessages::Fail(const absl::Status& status) {
  std::vector<std::shared_ptr<Operation>> pending;
  {
    std::lock_guard lock(mutex_);
    if (!failure_.ok()) return;
    failure_ = status;
    for (Channel& each : channels_) {
      for (Side& side : each.sends) pending.push_back(std::move(side.operation));
      for (Side& side : each.receives) pending.push_back(std::move(side.operation));
      each = Channel();
    }
  }
  for (const auto& operation : pending) Finish(operation, status);
}

void InProcessMessages::Leave(int rank) {
  std::vector<std::shared_ptr<Operation>> pending;
  absl::Status failure;
  {
    std::lock_guard lock(mutex_);
    gone_[rank] = true;
    failure = FailureWith(rank);
    for (int peer = 0; peer < ranks_; ++peer) {
      for (Side& side : channel(peer, rank).sends) pending.push_back(std::move(side.operation));
      for (Side& side : channel(peer, rank).receives) pending.push_back(std::move(side.operation));
      for (Side& side : channel(rank, peer).receives) pending.push_back(std::move(side.operation));
      channel(peer, rank) = Channel();
      channel(rank, peer).receives.clear();
      std::deque<Side> buffered;
      for (Side& side : channel(rank, peer).sends) {
        if (side.operation == nullptr) {
          buffered.push_back(std::move(side));
        } else {
          pending.push_back(std::move(side.operation));
        }
      }
      channel(rank, peer).sends = std::move(buffered);
    }
  }
  for (const auto& operation : pending) Finish(operation, failure);
  std::unique_lock lock(mutex_);
  delivered_.wait(lock, [&] { return delivering_[rank] == 0; });
}

std::string InProcessMessages::Describe(int rank) const {
  std::lock_guard lock(mutex_);
  std::string text;
  auto append = [&](const std::deque<Side>& sides, const char* what, int peer) {
    int64_t count = 0, first = 0;
    for (const Side& side : sides) {
      if (side.operation == nullptr) continue;
      if (count++ == 0) first = side.bytes;
    }
    if (count == 0) return;
    absl::StrAppend(&text, text.empty() ? "" : "; ", count, " ", what, " rank ", peer,
                    " (first: ", first, " bytes)");
  };
  for (int peer = 0; peer < ranks_; ++peer) {
    append(channel(peer, rank).receives, "to receive from", peer);
    append(channel(rank, peer).sends, "to be received by", peer);
  }
  return text;
}

}  // namespace longspan
