// What an error of one rank says beside its cause: where it happened, and what to do about it.
#ifndef LONGSPAN_RUNTIME_TRAIN_FAILURE_H_
#define LONGSPAN_RUNTIME_TRAIN_FAILURE_H_

#include <string>

#include "absl/status/status.h"
#include "kernels/device/stream.h"

namespace longspan {

// `status` with `when`, such as "step 12", and the device in front where that is a GPU, and with
// advice behind it where memory was short. As it is where it is OK, or an error that all ranks have
// (IsAgreed), which knows all that.
absl::Status FailureAt(const std::string& when, const Device& device, const absl::Status& status);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_FAILURE_H_
