// ExchangeTrace: what a rank's timeline says of one exchange.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_EXCHANGE_TRACE_H_
#define LONGSPAN_PARALLEL_TRANSPORT_EXCHANGE_TRACE_H_

#include <memory>
#include <vector>

#include "kernels/device/stream.h"
#include "kernels/device/trace.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Made where the exchange is called, told when its messages are posted or asked for its label. Does
// nothing where the stream's device records nothing.
class ExchangeTrace {
 public:
  ExchangeTrace(const std::vector<Message>& sends, const std::vector<Message>& receives,
                const Stream& stream);
  // The transfer lasts from now until `event`, the exchange's, is done.
  void Posted(const Event& event) const;
  // For a stream that does the transfer as its own work, and times it itself.
  const TraceLabel& label() const { return label_; }

 private:
  std::shared_ptr<TraceRecorder> recorder_;  // nullptr: nothing is recorded
  TraceLabel label_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_EXCHANGE_TRACE_H_
