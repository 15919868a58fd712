// FaultyTransport: a transport whose tagged messages come late or never.
#ifndef LONGSPAN_TESTS_FAULTS_FAULTY_TRANSPORT_H_
#define LONGSPAN_TESTS_FAULTS_FAULTY_TRANSPORT_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../parallel/forwarding_transport.h"

namespace longspan {

class FaultyTransport : public ForwardingTransport {
 public:
  // `before_send` is told "send PHASE" on the sending thread, "send collective" before a host call
  // of all ranks, and says whether the message goes out at all. Each comes late by a random time
  // below `delay`, so messages overtake each other.
  FaultyTransport(Transport& inner, std::function<bool(const std::string& text)> before_send,
                  std::chrono::milliseconds delay, uint64_t seed)
      : ForwardingTransport(inner),
        before_send_(std::move(before_send)),
        delay_(delay),
        random_(seed) {
    postman_ = std::thread([this] { Deliver(); });
  }
  // What is still on its way is lost.
  ~FaultyTransport() override;

  absl::StatusOr<std::vector<std::string>> AllGatherBytes(std::string_view bytes) override {
    if (!before_send_("send collective")) return Silent();
    return inner().AllGatherBytes(bytes);
  }
  absl::StatusOr<std::string> BroadcastBytes(std::string_view bytes, int root) override {
    if (!before_send_("send collective")) return Silent();
    return inner().BroadcastBytes(bytes, root);
  }
  absl::Status Barrier() override {
    return before_send_("send collective") ? inner().Barrier() : Silent();
  }
  absl::Status SendTagged(int peer, std::string_view tag, std::string_view bytes) override;

 private:
  struct Letter {
    int peer = 0;
    std::string tag, bytes;
  };
  void Deliver();
  static absl::Status Silent() { return absl::UnavailableError("this rank says nothing more"); }

  const std::function<bool(const std::string& text)> before_send_;
  const std::chrono::milliseconds delay_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::mt19937_64 random_;
  std::multimap<std::chrono::steady_clock::time_point, Letter> letters_;
  bool stop_ = false;
  std::thread postman_;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_FAULTS_FAULTY_TRANSPORT_H_
