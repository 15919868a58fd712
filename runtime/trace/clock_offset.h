// ClockOffset: what separates this rank's steady clock from rank 0's.
#ifndef LONGSPAN_RUNTIME_TRACE_CLOCK_OFFSET_H_
#define LONGSPAN_RUNTIME_TRACE_CLOCK_OFFSET_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "kernels/device/stream.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Collective. Nanoseconds to add to `clock` of this rank to have rank 0's: each rank asks rank 0
// for its time, several times over, and believes the quickest answer (Cristian's algorithm). The
// error is below half of that answer's round trip. Blocks until the ranks before this one are done;
// `stream` is idle.
absl::StatusOr<int64_t> ClockOffset(Transport& transport, Stream& stream,
                                    const std::function<int64_t()>& clock);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRACE_CLOCK_OFFSET_H_
