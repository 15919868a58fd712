#include "parallel/transport/exchange_trace.h"

namespace longspan {

ExchangeTrace::ExchangeTrace(const std::vector<Message>& sends,
                             const std::vector<Message>& receives, const Stream& stream) {
  if (RecorderOf(stream.device()) == nullptr) return;
  recorder_ = stream.device().trace();
  label_ = TraceLabel{"transfer", TraceKind::kTransfer}.Within(stream.span());
  if (!sends.empty()) label_.to = sends[0].peer;
  if (!receives.empty()) label_.from = receives[0].peer;
  label_.sent_bytes = label_.received_bytes = 0;
  for (const Message& message : sends) label_.sent_bytes += message.tensor.bytes();
  for (const Message& message : receives) label_.received_bytes += message.tensor.bytes();
}

void ExchangeTrace::Posted(const Event& event) const {
  if (recorder_ == nullptr) return;
  event.OnDone([recorder = recorder_, label = label_, begin = TraceClock()](const absl::Status&) {
    recorder->Record(label, TraceRecorder::kTransferRow, begin, TraceClock());
  });
}

}  // namespace longspan
