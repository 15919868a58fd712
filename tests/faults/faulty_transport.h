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

#include "parallel/transport/transport.h"

namespace longspan {

class FaultyTransport : public Transport {
 public:
  // `before_send` is told "send PHASE" on the sending thread, "send collective" before a host call
  // of all ranks, and says whether the message goes out at all. Each comes late by a random time
  // below `delay`, so messages overtake each other.
  FaultyTransport(Transport& inner, std::function<bool(const std::string& text)> before_send,
                  std::chrono::milliseconds delay, uint64_t seed)
      : inner_(inner), before_send_(std::move(before_send)), delay_(delay), random_(seed) {
    postman_ = std::thread([this] { Deliver(); });
  }
  // What is still on its way is lost.
  ~FaultyTransport() override;

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  int ranks_on_node() const override { return inner_.ranks_on_node(); }
  int rank_on_node() const override { return inner_.rank_on_node(); }
  std::string name() const override { return inner_.name(); }
  Event Exchange(std::vector<Message> sends, std::vector<Message> receives,
                 Stream& stream) override {
    return inner_.Exchange(std::move(sends), std::move(receives), stream);
  }
  void AllReduceSum(TensorView tensor, Stream& stream) override {
    inner_.AllReduceSum(tensor, stream);
  }
  void ReduceScatterSum(TensorView input, TensorView output, Stream& stream) override {
    inner_.ReduceScatterSum(input, output, stream);
  }
  DType Bf16SumType(DeviceKind kind) const override { return inner_.Bf16SumType(kind); }
  void AllGather(TensorView input, TensorView output, Stream& stream) override {
    inner_.AllGather(input, output, stream);
  }
  absl::StatusOr<std::vector<std::string>> AllGatherBytes(std::string_view bytes) override {
    if (!before_send_("send collective")) return Silent();
    return inner_.AllGatherBytes(bytes);
  }
  absl::StatusOr<std::string> BroadcastBytes(std::string_view bytes, int root) override {
    if (!before_send_("send collective")) return Silent();
    return inner_.BroadcastBytes(bytes, root);
  }
  absl::Status Barrier() override {
    return before_send_("send collective") ? inner_.Barrier() : Silent();
  }
  absl::Status SendTagged(int peer, std::string_view tag, std::string_view bytes) override;
  absl::StatusOr<std::string> ReceiveTagged(int peer, std::string_view tag,
                                            absl::Duration timeout) override {
    return inner_.ReceiveTagged(peer, tag, timeout);
  }
  void DropTagged(std::string_view prefix) override { inner_.DropTagged(prefix); }
  void Abort(const std::string& reason) override { inner_.Abort(reason); }
  int64_t exchanged_bytes() const override { return inner_.exchanged_bytes(); }

 private:
  struct Letter {
    int peer = 0;
    std::string tag, bytes;
  };
  void Deliver();
  static absl::Status Silent() { return absl::UnavailableError("this rank says nothing more"); }

  Transport& inner_;
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
