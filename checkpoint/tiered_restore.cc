// Restoring a step whose files lie in several places.
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "checkpoint/decoded_reads.h"
#include "checkpoint/manifest.h"
#include "checkpoint/places.h"
#include "checkpoint/restore_reads.h"
#include "checkpoint/step_directory.h"
#include "checkpoint/tiers.h"
#include "checkpoint/vote.h"

namespace longspan {
namespace {

// Reads that a rank sends to another one before all ranks go on: bounds the memory of messages.
constexpr size_t kReadsARound = 4;
// Ranks of a job that restores are alive, or the transport says that they are not.
constexpr absl::Duration kPatience = absl::Minutes(10);

using BadPlaces = std::set<Places::Bad>;

// A read that another rank carries out.
struct Request {
  int to = 0;    // the rank that asks
  int from = 0;  // the rank that reads
  int file = 0, copy = 0;
  int64_t begin = 0, end = 0;
  size_t read = 0;  // its index, of the rank that asks
};

class Restorer : public TieredRestore {
 public:
  Restorer(FileSystem& files, const FoundCheckpoint& found, const std::vector<int>& nodes,
           Transport& transport, CheckpointInfo info, Manifest manifest)
      : files_(files),
        found_(found),
        transport_(transport),
        info_(std::move(info)),
        manifest_(std::move(manifest)),
        places_(found, nodes, manifest_),
        decoded_(files, manifest_, places_, transport,
                 absl::StrCat("restore generation ", found.generation, " step ", found.step),
                 kPatience) {}

  const CheckpointInfo& info() const override { return info_; }
  std::vector<CheckpointTensor> tensors() const override { return TensorsOf(manifest_); }

  // Every file is somewhere, or can be computed. The same on all ranks.
  absl::Status CheckPlaces() const {
    for (size_t i = 0; i < manifest_.files.size(); ++i) {
      const auto file = static_cast<int>(i);
      const int64_t bytes = manifest_.files[i].bytes;
      if (Choose(file, 0, bytes).has_value()) continue;
      const absl::Status computable = decoded_.Check(file, 0, bytes);
      if (computable.ok()) continue;
      return absl::DataLossError(
          absl::StrCat(Text(), ": ", manifest_.files[i].name,
                       " is not in any place that is left: ", computable.message()));
    }
    return absl::OkStatus();
  }

  absl::Status Restore(const std::vector<StateRegion>& regions,
                       std::vector<std::string>* notes) override {
    absl::StatusOr<std::vector<RestoreRead>> planned =
        PlanRestore(manifest_, info_.directory, regions);
    if (absl::Status status = Agree("plan", planned.status()); !status.ok()) return status;
    std::vector<RestoreRead> left = *std::move(planned);
    // Every pass either ends or finds out about a bad place.
    while (true) {
      absl::Status mine;
      std::vector<RestoreRead> plain, nowhere;
      for (RestoreRead& read : left) {
        const bool there = Choose(read.file, read.begin, read.end).has_value();
        if (!there) mine.Update(CheckComputable(read));
        (there ? plain : nowhere).push_back(std::move(read));
      }
      if (absl::Status status = Agree("places", mine); !status.ok()) return status;

      BadPlaces bad;
      std::vector<RestoreRead> again;
      if (absl::Status status = ReadHere(plain, bad, again); !status.ok()) return status;
      if (absl::Status status = ReadElsewhere(plain, bad, again); !status.ok()) return status;
      if (absl::Status status = decoded_.Run(nowhere, bad, again, last_failure_); !status.ok()) {
        return status;
      }
      absl::StatusOr<bool> more = TellBad(bad, !again.empty(), notes);
      if (!more.ok()) return more.status();
      if (!*more) break;
      left = std::move(again);
    }
    if (notes != nullptr) {
      for (const auto& [file, tier] : decoded_.computed()) {
        notes->push_back(absl::StrCat(Text(), ": ", manifest_.files[file].name,
                                      " was computed from parity of other nodes, in tier ", tier));
      }
    }
    return absl::OkStatus();
  }

 private:
  std::string Text() const {
    return absl::StrCat("checkpoint of step ", found_.step, ", generation ", found_.generation);
  }

  absl::Status Agree(const char* what, const absl::Status& mine) {
    return Vote(transport_, absl::StrCat("restore step ", found_.step, ": ", what), mine).status();
  }

  // Where this rank takes bytes of a file from.
  std::optional<int> Choose(int file, int64_t begin, int64_t end) const {
    return places_.Choose(transport_.rank(), file, begin, end);
  }
  int ChooseFor(const RestoreRead& read) const { return *Choose(read.file, read.begin, read.end); }

  absl::Status CheckComputable(const RestoreRead& read) const {
    const absl::Status computable = decoded_.Check(read.file, read.begin, read.end);
    if (computable.ok()) return computable;
    // What cannot be read now is not lost: an older step must not take its place.
    const absl::StatusCode code =
        unreadable_.ok() ? absl::StatusCode::kDataLoss : unreadable_.code();
    return absl::Status(code, absl::StrCat(Text(), ": ", manifest_.files[read.file].name,
                                           " is nowhere whole: ", last_failure_.message(), "; ",
                                           computable.message()));
  }

  absl::Status ReadHere(const std::vector<RestoreRead>& reads, BadPlaces& bad,
                        std::vector<RestoreRead>& again) {
    std::vector<size_t> failed;
    const absl::Status status = ReadAndVerify(
        files_, manifest_, reads,
        [&](const RestoreRead& read) {
          const int place = ChooseFor(read);
          return places_.Here(transport_.rank(), place) ? places_.PathOf(read.file, place)
                                                        : std::string();
        },
        &failed);
    last_failure_.Update(status);
    if (!absl::IsDataLoss(status) && !absl::IsNotFound(status) &&
        std::any_of(failed.begin(), failed.end(),
                    [&](size_t i) { return ChooseFor(reads[i]) == Places::kShared; })) {
      unreadable_.Update(status);
    }
    for (const size_t i : failed) {
      places_.InsertBad(reads[i].file, ChooseFor(reads[i]), reads[i].begin, reads[i].end, bad);
      again.push_back(reads[i]);
    }
    return absl::OkStatus();
  }

  // Reads that other nodes' ranks carry out, in rounds.
  absl::Status ReadElsewhere(const std::vector<RestoreRead>& reads, BadPlaces& bad,
                             std::vector<RestoreRead>& again) {
    absl::StatusOr<std::vector<Request>> requests = Exchange(reads);
    if (!requests.ok()) return requests.status();
    // By the rank that reads and the one that asks, in the order in which it asks.
    std::map<std::pair<int, int>, std::vector<Request>> streams;
    size_t rounds = 0;
    for (const Request& request : *requests) {
      std::vector<Request>& stream = streams[{request.from, request.to}];
      stream.push_back(request);
      rounds = std::max(rounds, (stream.size() + kReadsARound - 1) / kReadsARound);
    }
    const int me = transport_.rank();
    for (size_t round = 0; round < rounds; ++round) {
      for (const bool serving : {true, false}) {
        for (const auto& [ranks, stream] : streams) {
          if ((serving ? ranks.first : ranks.second) != me) continue;
          const size_t end = std::min(stream.size(), (round + 1) * kReadsARound);
          for (size_t i = round * kReadsARound; i < end; ++i) {
            absl::Status status = serving ? Serve(stream[i]) : Take(stream[i], reads, bad, again);
            if (!status.ok()) return status;
          }
        }
      }
      if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // Collective. Every rank's requests.
  absl::StatusOr<std::vector<Request>> Exchange(const std::vector<RestoreRead>& reads) {
    std::string mine;
    for (size_t i = 0; i < reads.size(); ++i) {
      const int place = ChooseFor(reads[i]);
      if (places_.Here(transport_.rank(), place)) continue;
      const int from = places_.ReaderOf(transport_.rank(), place, static_cast<int64_t>(i));
      absl::StrAppend(&mine, from, " ", reads[i].file, " ", place, " ", reads[i].begin, " ",
                      reads[i].end, " ", i, "\n");
    }
    absl::StatusOr<std::vector<std::string>> all = transport_.AllGatherBytes(mine);
    if (!all.ok()) return all.status();
    std::vector<Request> requests;
    for (size_t to = 0; to < all->size(); ++to) {
      for (const absl::string_view line : absl::StrSplit((*all)[to], '\n', absl::SkipEmpty())) {
        const std::vector<std::string> words = absl::StrSplit(line, ' ');
        requests.push_back({static_cast<int>(to), std::stoi(words[0]), std::stoi(words[1]),
                            std::stoi(words[2]), std::stoll(words[3]), std::stoll(words[4]),
                            static_cast<size_t>(std::stoull(words[5]))});
      }
    }
    return requests;
  }

  std::string TagOf(const Request& request) const {
    return absl::StrCat("restore generation ", found_.generation, " step ", found_.step, " read ",
                        request.read);
  }

  // One byte that says whether it went well, then the bytes or the reason.
  absl::Status Serve(const Request& request) {
    const int64_t bytes = request.end - request.begin;
    std::string message(static_cast<size_t>(1 + bytes), '\1');
    absl::StatusOr<std::unique_ptr<File>> file =
        files_.OpenForRead(places_.PathOf(request.file, request.copy));
    absl::Status status = file.status();
    if (status.ok()) status = (*file)->ReadAt(request.begin, message.data() + 1, bytes);
    if (!status.ok()) message = absl::StrCat(std::string(1, '\0'), status.message());
    return transport_.SendTagged(request.to, TagOf(request), message);
  }

  absl::Status Take(const Request& request, const std::vector<RestoreRead>& reads, BadPlaces& bad,
                    std::vector<RestoreRead>& again) {
    absl::StatusOr<std::string> message =
        transport_.ReceiveTagged(request.from, TagOf(request), kPatience);
    if (!message.ok()) return message.status();
    const RestoreRead& read = reads[request.read];
    const bool came = !message->empty() && (*message)[0] == '\1' &&
                      static_cast<int64_t>(message->size()) == 1 + read.end - read.begin;
    absl::Status status;
    if (!came) {
      status = absl::DataLossError(message->empty() ? "an empty answer" : message->substr(1));
    } else {
      status = CheckChunks(manifest_, read, places_.TextOf(request.file, request.copy),
                           message->data() + 1);
    }
    if (status.ok()) {
      CopyToRegions(read, message->data() + 1);
    } else {
      last_failure_.Update(status);
      places_.InsertBad(read.file, request.copy, read.begin, read.end, bad);
      again.push_back(read);
    }
    return absl::OkStatus();
  }

  // Collective: what any rank found bad is bad for all. Whether any rank has reads left.
  absl::StatusOr<bool> TellBad(const BadPlaces& bad, bool again, std::vector<std::string>* notes) {
    std::string mine = again ? "again\n" : "";
    for (const auto& [item, place, unit] : bad) {
      absl::StrAppend(&mine, item, " ", place, " ", unit, "\n");
      if (notes != nullptr && noted_.insert({item, place}).second) {
        notes->push_back(absl::StrCat(places_.TextOf(item, place),
                                      " is left for another copy: ", last_failure_.message()));
      }
    }
    absl::StatusOr<std::vector<std::string>> all = transport_.AllGatherBytes(mine);
    if (!all.ok()) return all.status();
    bool more = false;
    for (const std::string& text : *all) {
      for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
        if (line == "again") {
          more = true;
          continue;
        }
        const std::vector<std::string> words = absl::StrSplit(line, ' ');
        places_.Leave({std::stoi(words[0]), std::stoi(words[1]), std::stoll(words[2])});
      }
    }
    return more;
  }

  FileSystem& files_;
  const FoundCheckpoint& found_;
  Transport& transport_;
  const CheckpointInfo info_;
  const Manifest manifest_;
  Places places_;
  DecodedReads decoded_;
  std::set<std::pair<int, int>> noted_;  // item, place
  absl::Status last_failure_;
  absl::Status unreadable_;  // of the checkpoint directory
};

// The texts of manifest and commit record of a directory, whichever files it holds.
absl::StatusOr<std::string> ReadRecords(FileSystem& files, const std::string& directory) {
  absl::StatusOr<Manifest> manifest =
      ReadCommittedManifest(files, directory, nullptr, Holds::kSomeFiles);
  if (!manifest.ok()) return manifest.status();
  absl::StatusOr<std::string> commit = files.ReadAll(JoinPath(directory, kCommitName));
  if (!commit.ok()) return commit.status();
  absl::StatusOr<std::string> text = files.ReadAll(JoinPath(directory, kManifestName));
  if (!text.ok()) return text.status();
  return absl::StrCat(commit->size(), "\n", *commit, *text);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TieredRestore>> TieredRestore::Open(FileSystem& files,
                                                                   const FoundCheckpoint& found,
                                                                   const std::vector<int>& nodes,
                                                                   Transport& transport) {
  // Rank 0 tells all what it, or else the first node that has them, reads.
  std::string source = found.directory;
  int teller = 0;
  if (source.empty()) {
    for (const FoundCheckpoint::Copy& copy : found.copies) {
      if (!copy.committed) continue;
      source = copy.directory;
      teller = static_cast<int>(std::find(nodes.begin(), nodes.end(), copy.node) - nodes.begin());
      break;
    }
  }
  absl::StatusOr<std::string> records = "";
  if (transport.rank() == teller) records = ReadRecords(files, source);
  absl::StatusOr<std::vector<std::string>> votes =
      Vote(transport, absl::StrCat("restore step ", found.step, ": records"), records.status());
  if (!votes.ok()) return votes.status();
  absl::StatusOr<std::string> told = transport.BroadcastBytes(*records, teller);
  if (!told.ok()) return told.status();
  const size_t line = told->find('\n');
  const size_t commit_bytes = std::stoull(told->substr(0, line));
  absl::StatusOr<CommitRecord> commit =
      ParseCommit(told->substr(line + 1, commit_bytes), JoinPath(source, kCommitName));
  if (!commit.ok()) return commit.status();
  absl::StatusOr<Manifest> manifest =
      ParseManifest(told->substr(line + 1 + commit_bytes), JoinPath(source, kManifestName));
  if (!manifest.ok()) return manifest.status();
  CheckpointInfo info = InfoOf(*manifest, source);
  info.time = commit->time;
  auto restorer = std::make_unique<Restorer>(files, found, nodes, transport, std::move(info),
                                             *std::move(manifest));
  if (absl::Status status = restorer->CheckPlaces(); !status.ok()) return status;
  return restorer;
}

}  // namespace longspan
