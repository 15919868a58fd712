// Votes: every rank says whether its part went well, and every rank learns the same outcome.
//
// A vote is tagged with what it is about (generation, step, attempt, phase); ranks that are in
// different places find out instead of mistaking one vote for another.
#ifndef LONGSPAN_CHECKPOINT_VOTE_H_
#define LONGSPAN_CHECKPOINT_VOTE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/transport/transport.h"

namespace longspan {

// Name of this machine, for messages.
std::string HostName();

// Collective. The payloads of all ranks if every rank's `mine` is OK; else, on every rank, the
// failure of the lowest rank that has one, with rank and host named. A payload travels only with an
// OK. Unavailable if a peer is gone.
absl::StatusOr<std::vector<std::string>> Vote(Transport& transport, const std::string& tag,
                                              const absl::Status& mine,
                                              const std::string& payload = "");

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_VOTE_H_
