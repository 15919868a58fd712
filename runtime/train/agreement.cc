#include "runtime/train/agreement.h"

#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

constexpr char kAgreed[] = "longspan/agreed";

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

}  // namespace

absl::Status MarkAgreed(absl::Status status) {
  if (!status.ok()) status.SetPayload(kAgreed, absl::Cord());
  return status;
}

bool IsAgreed(const absl::Status& status) { return status.GetPayload(kAgreed).has_value(); }

absl::Status Agree(Transport& transport, const absl::Status& mine) {
  // One byte of code, then host and message.
  std::string report(1, static_cast<char>(mine.code()));
  if (!mine.ok()) absl::StrAppend(&report, HostName(), "\n", mine.message());
  const absl::StatusOr<std::vector<std::string>> reports = transport.AllGatherBytes(report);
  if (!reports.ok()) return mine.ok() ? reports.status() : mine;
  int failed = 0, first = -1;
  for (int rank = 0; rank < transport.size(); ++rank) {
    if ((*reports)[rank][0] == 0) continue;
    ++failed;
    if (first < 0) first = rank;
  }
  if (first < 0) return absl::OkStatus();
  const std::string& text = (*reports)[first];
  const size_t line = text.find('\n');
  const std::string host = text.substr(1, line - 1), message = text.substr(line + 1);
  // What all ranks say alike needs no rank.
  const std::string where =
      failed == transport.size() ? "" : absl::StrCat("rank ", first, " on ", host, ": ");
  return MarkAgreed(absl::Status(static_cast<absl::StatusCode>(text[0]), where + message));
}

}  // namespace longspan
