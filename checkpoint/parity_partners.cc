#include "checkpoint/parity_partners.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/background_vote.h"
#include "checkpoint/erasure_code.h"
#include "checkpoint/restore_reads.h"
#include "checkpoint/step_directory.h"

namespace longspan {
namespace {

// Symbols of a rank that its keepers have not yet added up.
constexpr size_t kSymbolsAhead = 3;

// The first byte of a message: the symbol follows, or the reason why it does not come.
constexpr char kComes = 1, kDoesNotCome = 0;

// Every message has a tag of its own, so that one that overtakes another is not taken for it.
std::string SymbolTag(const SavedStep& step, int64_t number, int p) {
  return absl::StrCat(step.tag, "symbol ", number, " for parity ", p);
}
std::string AnswersTag(const SavedStep& step) { return absl::StrCat(step.tag, "added"); }

}  // namespace

ParityPartners::ParityPartners(FileSystem& files, Transport& transport, std::string run_id,
                               std::vector<ErasureGroup> groups, absl::Duration timeout,
                               const std::atomic<bool>& stop)
    : files_(files),
      transport_(transport),
      run_id_(std::move(run_id)),
      groups_(std::move(groups)),
      timeout_(timeout),
      stop_(stop),
      keeping_(
          [this](const SavedStep& step, const absl::Status& mine) { return Keep(step, mine); }) {
  for (const ErasureGroup& group : groups_) {
    for (size_t i = 0; i < group.members.size(); ++i) {
      const Place place{group.index, static_cast<int>(i)};
      if (group.members[i].file == transport_.rank()) own_ = place;
      if (group.members[i].keeper == transport_.rank()) keeps_.push_back(place);
    }
  }
}

void ParityPartners::Expect(const SavedStep& step, const absl::Status& mine) {
  symbol_.clear();
  next_ = 0;
  unanswered_.clear();
  refused_.clear();
  keeping_.Expect(step, mine);
}

int ParityPartners::KeeperRank(int d, int p) const {
  const ErasureGroup& group = groups_[own_.group];
  return group.members[group.layout.KeeperOf(own_.member, d, p)].keeper;
}

absl::Status ParityPartners::Send(const SavedStep& step, int64_t /*piece*/, const char* data,
                                  int64_t bytes, int64_t /*file_bytes*/) {
  const ErasureLayout& layout = groups_[own_.group].layout;
  while (bytes > 0) {
    const int64_t wanted = layout.SymbolBytes(own_.member, next_);
    const int64_t part = std::min(bytes, wanted - static_cast<int64_t>(symbol_.size()));
    symbol_.append(data, static_cast<size_t>(part));
    data += part;
    bytes -= part;
    if (static_cast<int64_t>(symbol_.size()) < wanted) continue;
    if (absl::Status status = SendSymbol(step); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ParityPartners::SendSymbol(const SavedStep& step) {
  const ErasureLayout& layout = groups_[own_.group].layout;
  while (unanswered_.size() >= kSymbolsAhead * static_cast<size_t>(layout.parity)) {
    if (absl::Status status = AwaitAnswer(step); !status.ok()) return status;
  }
  const int64_t number = next_++;
  const std::string message = absl::StrCat(std::string(1, kComes), symbol_);
  symbol_.clear();
  absl::Status status;
  for (int p = 0; p < layout.parity; ++p) {
    const int keeper = KeeperRank(static_cast<int>(number % layout.data), p);
    unanswered_.push_back(keeper);
    status.Update(transport_.SendTagged(keeper, SymbolTag(step, number, p), message));
  }
  return status;
}

absl::Status ParityPartners::AwaitAnswer(const SavedStep& step) {
  const int keeper = unanswered_.front();
  absl::StatusOr<std::string> answer =
      AwaitTagged(transport_, keeper, AnswersTag(step), timeout_, stop_);
  if (!answer.ok()) return answer.status();
  unanswered_.pop_front();
  if (answer->empty()) return absl::OkStatus();
  refused_.insert(keeper);
  return absl::AbortedError(
      absl::StrCat("rank ", keeper, ", which keeps parity of this rank's file: ", *answer));
}

absl::Status ParityPartners::EndFile(const SavedStep& step, const absl::Status& mine) {
  absl::Status status = mine;
  while (status.ok() && !unanswered_.empty()) status = AwaitAnswer(step);
  if (status.ok()) return status;
  // Each keeper is told where it waits next.
  const ErasureLayout& layout = groups_[own_.group].layout;
  const std::string message = absl::StrCat(std::string(1, kDoesNotCome), status.message());
  for (int64_t number = next_; number < layout.Symbols(own_.member); ++number) {
    for (int p = 0; p < layout.parity; ++p) {
      const int keeper = KeeperRank(static_cast<int>(number % layout.data), p);
      if (!refused_.insert(keeper).second) continue;
      transport_.SendTagged(keeper, SymbolTag(step, number, p), message).IgnoreError();
    }
  }
  return status;
}

absl::Status ParityPartners::Keep(const SavedStep& step, const absl::Status& mine) {
  absl::Status status;
  // In the order of groups, the same on all ranks, so that no two wait for each other.
  for (const Place& place : keeps_) {
    if (mine.ok()) {
      status.Update(KeepOne(step, place));
    } else {
      Refuse(step, place, absl::StrCat("cannot keep it: ", mine.message()), {});
    }
  }
  return status;
}

absl::Status ParityPartners::KeepOne(const SavedStep& step, const Place& place) {
  const ErasureGroup& group = groups_[place.group];
  ParityDescription description;
  description.run_id = run_id_;
  description.step = step.name;
  description.group = place.group;
  description.member = place.member;
  description.layout = group.layout;
  for (const ErasureGroup::Member& member : group.members) {
    description.files.push_back(member.file < 0 ? "" : RankFileName(member.file));
  }
  absl::StatusOr<std::unique_ptr<ParityFileWriter>> file =
      ParityFileWriter::Create(files_, step.directory, std::move(description));
  std::set<int> ended;  // members that know, or are the ones that say so
  const absl::Status status = file.ok() ? AddUp(step, place, **file, ended) : file.status();
  if (!status.ok()) Refuse(step, place, std::string(status.message()), ended);
  return status;
}

absl::Status ParityPartners::AddUp(const SavedStep& step, const Place& place,
                                   ParityFileWriter& file, std::set<int>& ended) {
  const ErasureGroup& group = groups_[place.group];
  const ErasureLayout& layout = group.layout;
  std::vector<Multiplier> multipliers;  // p * data + d
  std::vector<ReadBuffer> sums;
  for (int p = 0; p < layout.parity; ++p) {
    sums.emplace_back(layout.symbol_bytes);
    for (int d = 0; d < layout.data; ++d) multipliers.emplace_back(ParityFactor(layout.data, p, d));
  }
  for (int64_t cycle = 0; cycle < layout.cycles(); ++cycle) {
    for (ReadBuffer& sum : sums) {
      std::memset(sum.data(), 0, static_cast<size_t>(layout.symbol_bytes));
    }
    for (int d = 0; d < layout.data; ++d) {
      const int64_t number = cycle * layout.data + d;
      for (int p = 0; p < layout.parity; ++p) {
        const int member = layout.SourceOf(place.member, p, d);
        const int64_t bytes = layout.SymbolBytes(member, number);
        if (bytes == 0) continue;
        const int source = group.members[member].file;
        absl::StatusOr<std::string> message =
            AwaitTagged(transport_, source, SymbolTag(step, number, p), timeout_, stop_);
        if (!message.ok()) return message.status();
        if (message->empty() || (*message)[0] != kComes) {
          ended.insert(member);
          return absl::AbortedError(absl::StrCat("the file of rank ", source, " does not come: ",
                                                 message->substr(message->empty() ? 0 : 1)));
        }
        if (static_cast<int64_t>(message->size()) != 1 + bytes) {
          return absl::InternalError(absl::StrCat("a symbol of rank ", source, " has ",
                                                  message->size() - 1, " bytes instead of ",
                                                  bytes));
        }
        multipliers[static_cast<size_t>(p * layout.data + d)].AddProduct(message->data() + 1,
                                                                         sums[p].data(), bytes);
        if (absl::Status status = transport_.SendTagged(source, AnswersTag(step), "");
            !status.ok()) {
          return status;
        }
      }
    }
    for (const ReadBuffer& sum : sums) {
      if (absl::Status status = file.Add(sum.data()); !status.ok()) return status;
    }
  }
  return file.Finish();
}

// Tells the members whose symbols are wanted, and who may wait for an answer.
void ParityPartners::Refuse(const SavedStep& step, const Place& place, const std::string& why,
                            const std::set<int>& ended) {
  const ErasureGroup& group = groups_[place.group];
  for (size_t i = 0; i < group.members.size(); ++i) {
    const auto member = static_cast<int>(i);
    const int rank = group.members[i].file;
    if (rank < 0 || member == place.member || ended.count(member) > 0) continue;
    transport_.SendTagged(rank, AnswersTag(step), why).IgnoreError();
  }
}

}  // namespace longspan
