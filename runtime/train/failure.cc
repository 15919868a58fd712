#include "runtime/train/failure.h"

#include "absl/strings/str_cat.h"
#include "runtime/train/agreement.h"

namespace longspan {

absl::Status FailureAt(const std::string& when, const Device& device, const absl::Status& status) {
  if (status.ok() || IsAgreed(status)) return status;
  std::string message = when;
  if (device.kind() == DeviceKind::kCuda) absl::StrAppend(&message, " on ", device.description());
  absl::StrAppend(&message, ": ", status.message());
  if (absl::IsResourceExhausted(status)) {
    absl::StrAppend(&message,
                    "; lower batch.micro_batch_tokens, or train on more ranks (longspan train "
                    "--dry-run shows what each of them holds)");
  }
  return absl::Status(status.code(), message);
}

}  // namespace longspan
