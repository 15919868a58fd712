#include "checkpoint/vote.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace longspan {
namespace {

// A line is the tag, the status code and the host; what follows is the payload, or the message of a
// failure.
struct Ballot {
  std::string tag;
  absl::Status status;
  std::string host, rest;
};

Ballot Parse(const std::string& text) {
  Ballot ballot;
  size_t begin = 0;
  std::string* fields[3];
  std::string code;
  fields[0] = &ballot.tag;
  fields[1] = &code;
  fields[2] = &ballot.host;
  for (std::string* field : fields) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    *field = text.substr(begin, end - begin);
    begin = std::min(end + 1, text.size());
  }
  ballot.rest = text.substr(begin);
  const auto value = static_cast<absl::StatusCode>(std::atoi(code.c_str()));
  if (value != absl::StatusCode::kOk) ballot.status = absl::Status(value, ballot.rest);
  return ballot;
}

}  // namespace

std::string HostName() {
  char name[256] = {};
  if (gethostname(name, sizeof(name) - 1) != 0) return "unknown host";
  return name;
}

absl::StatusOr<std::vector<std::string>> Vote(Transport& transport, const std::string& tag,
                                              const absl::Status& mine,
                                              const std::string& payload) {
  const std::string text = tag + "\n" + std::to_string(static_cast<int>(mine.code())) + "\n" +
                           HostName() + "\n" + (mine.ok() ? payload : std::string(mine.message()));
  absl::StatusOr<std::vector<std::string>> all = transport.AllGatherBytes(text);
  if (!all.ok()) {
    return absl::Status(all.status().code(), "checkpoint vote (" + tag + ") on rank " +
                                                 std::to_string(transport.rank()) + ": " +
                                                 std::string(all.status().message()));
  }
  std::vector<Ballot> ballots;
  for (const std::string& each : *all) ballots.push_back(Parse(each));
  for (size_t rank = 0; rank < ballots.size(); ++rank) {
    if (ballots[rank].tag != ballots[0].tag) {
      return absl::InternalError("checkpoint: ranks 0 and " + std::to_string(rank) +
                                 " are in different saves: '" + ballots[0].tag + "' and '" +
                                 ballots[rank].tag +
                                 "'; every rank calls Save with the same step and metadata");
    }
  }
  for (size_t rank = 0; rank < ballots.size(); ++rank) {
    const Ballot& ballot = ballots[rank];
    if (ballot.status.ok()) continue;
    return absl::Status(ballot.status.code(), "rank " + std::to_string(rank) + " on " +
                                                  ballot.host + ": " +
                                                  std::string(ballot.status.message()));
  }
  std::vector<std::string> payloads;
  for (Ballot& ballot : ballots) payloads.push_back(std::move(ballot.rest));
  return payloads;
}

}  // namespace longspan
