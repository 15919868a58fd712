// ForwardingTransport: a transport that passes everything on. Tests and benchmarks override what
// they count, delay or leave out.
#ifndef LONGSPAN_TESTS_PARALLEL_FORWARDING_TRANSPORT_H_
#define LONGSPAN_TESTS_PARALLEL_FORWARDING_TRANSPORT_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "parallel/transport/transport.h"

namespace longspan {

// As thread-safe as `inner`, which outlives it.
class ForwardingTransport : public Transport {
 public:
  explicit ForwardingTransport(Transport& inner) : inner_(inner) {}

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
    return inner_.AllGatherBytes(bytes);
  }
  absl::StatusOr<std::string> BroadcastBytes(std::string_view bytes, int root) override {
    return inner_.BroadcastBytes(bytes, root);
  }
  absl::Status Barrier() override { return inner_.Barrier(); }
  absl::Status SendTagged(int peer, std::string_view tag, std::string_view bytes) override {
    return inner_.SendTagged(peer, tag, bytes);
  }
  absl::StatusOr<std::string> ReceiveTagged(int peer, std::string_view tag,
                                            absl::Duration timeout) override {
    return inner_.ReceiveTagged(peer, tag, timeout);
  }
  void DropTagged(std::string_view prefix) override { inner_.DropTagged(prefix); }
  void Abort(const std::string& reason) override { inner_.Abort(reason); }
  int64_t exchanged_bytes() const override { return inner_.exchanged_bytes(); }

 protected:
  Transport& inner() { return inner_; }

 private:
  Transport& inner_;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_PARALLEL_FORWARDING_TRANSPORT_H_
