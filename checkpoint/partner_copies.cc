#include "checkpoint/partner_copies.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/background_vote.h"
#include "checkpoint/commit.h"
#include "checkpoint/rank_file.h"

namespace longspan {
namespace {

// Pieces that are sent but not yet written: what a copy may cost in memory, on both sides.
constexpr int64_t kUnanswered = 3;

// In front of every piece.
struct PieceHead {
  int64_t file_bytes = 0;  // 0: the file will not come, text follows
  int64_t piece = 0;
};

std::string PieceMessage(const PieceHead& head, const char* data, int64_t bytes) {
  std::string message(sizeof(head) + static_cast<size_t>(bytes), '\0');
  std::memcpy(message.data(), &head, sizeof(head));
  std::memcpy(message.data() + sizeof(head), data, static_cast<size_t>(bytes));
  return message;
}

std::string PiecesTag(const SavedStep& step) { return absl::StrCat(step.tag, "copy"); }
std::string CopiedTag(const SavedStep& step) { return absl::StrCat(step.tag, "copied"); }

std::vector<int> SourcesOf(const std::vector<int>& partners, int rank) {
  std::vector<int> sources;
  for (size_t other = 0; other < partners.size(); ++other) {
    if (partners[other] == rank) sources.push_back(static_cast<int>(other));
  }
  return sources;
}

}  // namespace

std::vector<int> PartnersOf(const std::vector<int>& nodes) {
  const int count = nodes.empty() ? 0 : *std::max_element(nodes.begin(), nodes.end()) + 1;
  std::vector<std::vector<int>> ranks(count);
  for (size_t rank = 0; rank < nodes.size(); ++rank) {
    ranks[nodes[rank]].push_back(static_cast<int>(rank));
  }
  std::vector<int> partners(nodes.size(), -1);
  if (count < 2) return partners;
  for (int node = 0; node < count; ++node) {
    const std::vector<int>& next = ranks[(node + 1) % count];
    for (size_t i = 0; i < ranks[node].size(); ++i)
      partners[ranks[node][i]] = next[i % next.size()];
  }
  return partners;
}

PartnerCopies::PartnerCopies(FileSystem& files, Transport& transport,
                             const std::vector<int>& partners, absl::Duration timeout,
                             const std::atomic<bool>& stop)
    : files_(files),
      transport_(transport),
      partner_(partners[transport.rank()]),
      sources_(SourcesOf(partners, transport.rank())),
      timeout_(timeout),
      stop_(stop),
      keeping_(
          [this](const SavedStep& step, const absl::Status& mine) { return Keep(step, mine); }) {}

void PartnerCopies::Expect(const SavedStep& step, const absl::Status& mine) {
  sent_ = answered_ = 0;
  refused_ = false;
  keeping_.Expect(step, mine);
}

absl::Status PartnerCopies::AwaitAnswer(const SavedStep& step) {
  absl::StatusOr<std::string> answer =
      AwaitTagged(transport_, partner_, CopiedTag(step), timeout_, stop_);
  if (!answer.ok()) return answer.status();
  ++answered_;
  if (answer->empty()) return absl::OkStatus();
  refused_ = true;
  return absl::AbortedError(
      absl::StrCat("rank ", partner_, ", which keeps a copy of this rank's file: ", *answer));
}

absl::Status PartnerCopies::Send(const SavedStep& step, int64_t piece, const char* data,
                                 int64_t bytes, int64_t file_bytes) {
  if (partner_ < 0) return absl::OkStatus();
  while (sent_ - answered_ >= kUnanswered) {
    if (absl::Status status = AwaitAnswer(step); !status.ok()) return status;
  }
  ++sent_;
  return transport_.SendTagged(partner_, PiecesTag(step),
                               PieceMessage({file_bytes, piece}, data, bytes));
}

absl::Status PartnerCopies::EndFile(const SavedStep& step, const absl::Status& mine) {
  if (partner_ < 0) return mine;
  absl::Status status = mine;
  while (status.ok() && answered_ < sent_) status = AwaitAnswer(step);
  if (!status.ok() && !refused_) {
    const std::string why(status.message());
    transport_
        .SendTagged(partner_, PiecesTag(step),
                    PieceMessage({}, why.data(), static_cast<int64_t>(why.size())))
        .IgnoreError();
  }
  return status;
}

absl::Status PartnerCopies::Keep(const SavedStep& step, const absl::Status& mine) {
  absl::Status status;
  for (const int source : sources_) {
    if (mine.ok()) {
      status.Update(Take(step, source));
    } else {
      transport_
          .SendTagged(source, CopiedTag(step), absl::StrCat("cannot keep it: ", mine.message()))
          .IgnoreError();
    }
  }
  return status;
}

absl::Status PartnerCopies::Take(const SavedStep& step, int source) {
  bool told = false;  // the source knows, or is the one that says so
  absl::Status status = TakePieces(step, source, told);
  if (!status.ok() && !told) {
    transport_.SendTagged(source, CopiedTag(step), std::string(status.message())).IgnoreError();
  }
  return status;
}

absl::Status PartnerCopies::TakePieces(const SavedStep& step, int source, bool& told) {
  std::unique_ptr<File> file;
  while (true) {
    absl::StatusOr<std::string> message =
        AwaitTagged(transport_, source, PiecesTag(step), timeout_, stop_);
    if (!message.ok()) return message.status();
    PieceHead head;
    if (message->size() < sizeof(head)) return absl::InternalError("a piece without its head");
    std::memcpy(&head, message->data(), sizeof(head));
    const char* data = message->data() + sizeof(head);
    const auto bytes = static_cast<int64_t>(message->size() - sizeof(head));
    if (head.file_bytes == 0) {
      told = true;
      return absl::AbortedError(absl::StrCat("the file of rank ", source, " does not come: ",
                                             std::string(data, static_cast<size_t>(bytes))));
    }
    if (file == nullptr) {
      absl::StatusOr<std::unique_ptr<File>> created =
          CreateRankFile(files_, step.directory, source, head.file_bytes);
      if (!created.ok()) return created.status();
      file = *std::move(created);
    }
    const int64_t begin = head.piece * kPieceBytes;
    if (absl::Status status = file->WriteAt(begin, data, bytes); !status.ok()) return status;
    const bool last = begin + bytes == head.file_bytes;
    if (last) {
      if (absl::Status status = file->Sync(); !status.ok()) return status;
      file.reset();
      if (absl::Status status = files_.SyncDirectory(step.directory); !status.ok()) return status;
    }
    if (absl::Status status = transport_.SendTagged(source, CopiedTag(step), ""); !status.ok())
      return status;
    if (last) return absl::OkStatus();
  }
}

}  // namespace longspan
