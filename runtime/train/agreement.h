// Agreement: ranks end a phase of set-up together, with one message.
#ifndef LONGSPAN_RUNTIME_TRAIN_AGREEMENT_H_
#define LONGSPAN_RUNTIME_TRAIN_AGREEMENT_H_

#include "absl/status/status.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Collective. OK if every rank gives OK; otherwise, on every rank, the error of the lowest failing
// rank, with its number and host in front where it is not alone. Such an error is marked, so that
// only rank 0 prints it.
absl::Status Agree(Transport& transport, const absl::Status& mine);

// Whether every rank holds this same error.
bool IsAgreed(const absl::Status& status);
// Marks an error that every rank reached from the same data.
absl::Status MarkAgreed(absl::Status status);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_AGREEMENT_H_
