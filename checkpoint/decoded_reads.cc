#include "checkpoint/decoded_reads.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "checkpoint/erasure_code.h"

namespace longspan {

DecodedReads::DecodedReads(FileSystem& files, const Manifest& manifest, const Places& places,
                           Transport& transport, std::string purpose, absl::Duration patience)
    : files_(files),
      manifest_(manifest),
      places_(places),
      transport_(transport),
      purpose_(std::move(purpose)),
      patience_(patience) {
  for (size_t group = 0; group < places_.groups().size(); ++group) {
    const std::vector<int>& members = places_.groups()[group].files;
    for (size_t member = 0; member < members.size(); ++member) {
      groups_of_[members[member]].emplace_back(static_cast<int>(group), static_cast<int>(member));
    }
  }
}

absl::Status DecodedReads::PlanPart(int rank, int group, int member, Part& part) const {
  const ParityGroup& found = places_.groups()[group];
  const ErasureLayout& layout = found.description.layout;
  const int64_t number = part.begin / layout.symbol_bytes;
  const int64_t cycle = number / layout.data;
  const auto d = static_cast<int>(number % layout.data);
  const int64_t begin = part.begin - number * layout.symbol_bytes;  // within symbols
  const int64_t end = part.end - number * layout.symbol_bytes;
  part.group = group;
  part.sources.clear();
  for (int other = 0; other < layout.data; ++other) {
    if (other == d) continue;
    const int holder = layout.OtherOf(member, d, other);
    const int64_t theirs = cycle * layout.data + other;
    const int64_t filled = std::min(end, layout.SymbolBytes(holder, theirs));
    Source source;
    source.symbol = other;
    if (filled > begin) {
      source.item = found.files[holder];
      source.begin = theirs * layout.symbol_bytes + begin;
      source.end = theirs * layout.symbol_bytes + filled;
      const std::optional<int> place = places_.Choose(rank, source.item, source.begin, source.end);
      if (!place) continue;
      source.place = *place;
    }
    part.sources.push_back(source);
  }
  for (int p = 0; p < layout.parity; ++p) {
    if (static_cast<int>(part.sources.size()) == layout.data) break;
    const int keeper = layout.KeeperOf(member, d, p);
    const int64_t theirs = cycle * layout.parity + p;
    if (found.items[keeper] < 0 ||
        places_.IsBad(found.items[keeper], found.copies[keeper], theirs)) {
      continue;
    }
    part.sources.push_back(
        {layout.data + p, found.items[keeper], found.copies[keeper], begin, end, theirs});
  }
  if (static_cast<int>(part.sources.size()) < layout.data) {
    return absl::DataLossError(absl::StrCat(
        "of ", layout.data + layout.parity, " symbols of a stripe in tier ", found.tier, ", ",
        part.sources.size(), " are left, and ", layout.data, " are needed (\"", layout.data, "+",
        layout.parity, "\": any ", layout.parity, " of these nodes may be lost, not more)"));
  }
  std::vector<int> symbols;
  for (const Source& source : part.sources) symbols.push_back(source.symbol);
  absl::StatusOr<std::vector<uint8_t>> factors = RecoveryFactors(layout.data, symbols, d);
  if (factors.ok()) part.factors = *std::move(factors);
  return factors.status();
}

absl::StatusOr<std::vector<DecodedReads::Part>> DecodedReads::Plan(int rank,
                                                                   const Wanted& wanted) const {
  const auto groups = groups_of_.find(wanted.file);
  if (groups == groups_of_.end()) return absl::DataLossError("there is no parity of it");
  std::vector<Part> parts;
  for (int64_t at = wanted.begin; at < wanted.end; at = parts.back().end) {
    absl::Status missing;
    Part part;
    for (const auto& [group, member] : groups->second) {
      const int64_t symbol = places_.groups()[group].description.layout.symbol_bytes;
      part.begin = at;
      part.end = std::min(wanted.end, (at / symbol + 1) * symbol);
      absl::Status planned =
          places_.AnyBad(wanted.file, Places::kComputed - group, part.begin, part.end)
              ? absl::DataLossError("what its parity gives is something else")
              : PlanPart(rank, group, member, part);
      if (planned.ok()) {
        missing = absl::OkStatus();
        break;
      }
      missing.Update(planned);
    }
    if (!missing.ok()) return missing;
    parts.push_back(std::move(part));
  }
  return parts;
}

absl::Status DecodedReads::Check(int file, int64_t begin, int64_t end) const {
  return Plan(transport_.rank(), {file, begin, end}).status();
}

absl::StatusOr<std::vector<std::vector<DecodedReads::Wanted>>> DecodedReads::Exchange(
    const std::vector<RestoreRead>& mine) {
  std::string text;
  for (const RestoreRead& read : mine) {
    absl::StrAppend(&text, read.file, " ", read.begin, " ", read.end, "\n");
  }
  absl::StatusOr<std::vector<std::string>> all = transport_.AllGatherBytes(text);
  if (!all.ok()) return all.status();
  std::vector<std::vector<Wanted>> wanted(all->size());
  for (size_t rank = 0; rank < all->size(); ++rank) {
    for (const absl::string_view line : absl::StrSplit((*all)[rank], '\n', absl::SkipEmpty())) {
      const std::vector<std::string> words = absl::StrSplit(line, ' ');
      wanted[rank].push_back({std::stoi(words[0]), std::stoll(words[1]), std::stoll(words[2])});
    }
  }
  return wanted;
}

absl::Status DecodedReads::Run(const std::vector<RestoreRead>& mine, std::set<Places::Bad>& bad,
                               std::vector<RestoreRead>& again, absl::Status& failure) {
  ++passes_;
  absl::StatusOr<std::vector<std::vector<Wanted>>> wanted = Exchange(mine);
  if (!wanted.ok()) return wanted.status();
  size_t rounds = 0;
  for (const std::vector<Wanted>& each : *wanted) rounds = std::max(rounds, each.size());
  // A read of every rank at a time: bounds the memory of messages.
  for (size_t round = 0; round < rounds; ++round) {
    std::vector<Part> own;
    for (size_t rank = 0; rank < wanted->size(); ++rank) {
      if (round >= (*wanted)[rank].size()) continue;
      const auto to = static_cast<int>(rank);
      absl::StatusOr<std::vector<Part>> parts = Plan(to, (*wanted)[rank][round]);
      if (!parts.ok()) return parts.status();
      computed_.try_emplace((*wanted)[rank][round].file,
                            places_.groups()[parts->front().group].tier);
      if (to == transport_.rank()) {
        own = *std::move(parts);
      } else if (absl::Status status = Serve(to, *parts, static_cast<int64_t>(round));
                 !status.ok()) {
        return status;
      }
    }
    if (!own.empty()) {
      absl::Status status =
          Compute(mine[round], own, static_cast<int64_t>(round), bad, again, failure);
      if (!status.ok()) return status;
    }
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

int DecodedReads::From(int rank, const Source& source, int64_t round) const {
  return places_.Here(rank, source.place) ? rank : places_.ReaderOf(rank, source.place, round);
}

std::string DecodedReads::Tag(int64_t round, size_t part, size_t source) const {
  return absl::StrCat(purpose_, " pass ", passes_, " round ", round, " part ", part, " source ",
                      source);
}

absl::Status DecodedReads::Serve(int to, const std::vector<Part>& parts, int64_t round) {
  for (size_t p = 0; p < parts.size(); ++p) {
    for (size_t s = 0; s < parts[p].sources.size(); ++s) {
      const Source& source = parts[p].sources[s];
      if (source.item < 0 || From(to, source, round) != transport_.rank()) continue;
      absl::StatusOr<std::string> bytes = Read(source);
      // One byte that says whether it went well, then the bytes or the reason.
      const std::string message =
          bytes.ok() ? absl::StrCat(std::string(1, '\1'), *bytes)
                     : absl::StrCat(std::string(1, '\0'), bytes.status().message());
      if (absl::Status status = transport_.SendTagged(to, Tag(round, p, s), message);
          !status.ok()) {
        return status;
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> DecodedReads::Read(const Source& source) {
  const std::string path = places_.PathOf(source.item, source.place);
  const auto wanted = static_cast<size_t>(source.end - source.begin);
  if (source.number < 0) {
    // Whole chunks: a damaged source must be known from a sound one.
    RestoreRead read;
    read.file = source.item;
    read.begin = source.begin / manifest_.chunk_bytes * manifest_.chunk_bytes;
    read.end = std::min(
        manifest_.files[source.item].bytes,
        (source.end + manifest_.chunk_bytes - 1) / manifest_.chunk_bytes * manifest_.chunk_bytes);
    absl::StatusOr<std::unique_ptr<File>> file = files_.OpenForRead(path);
    if (!file.ok()) return file.status();
    const ReadBuffer buffer(read.end - read.begin);
    absl::Status status = (*file)->ReadAt(read.begin, buffer.data(), read.end - read.begin);
    if (status.ok()) status = CheckChunks(manifest_, read, path, buffer.data());
    if (!status.ok()) return status;
    return std::string(buffer.data() + (source.begin - read.begin), wanted);
  }
  std::unique_ptr<ParityFileReader>& reader = open_[path];
  if (reader == nullptr) {
    absl::StatusOr<std::unique_ptr<ParityFileReader>> opened = ParityFileReader::Open(files_, path);
    if (!opened.ok()) return opened.status();
    reader = *std::move(opened);
  }
  const ReadBuffer buffer(reader->description().layout.symbol_bytes);
  if (absl::Status status = reader->Read(source.number, buffer.data()); !status.ok()) return status;
  return std::string(buffer.data() + source.begin, wanted);
}

absl::Status DecodedReads::Compute(const RestoreRead& read, const std::vector<Part>& parts,
                                   int64_t round, std::set<Places::Bad>& bad,
                                   std::vector<RestoreRead>& again, absl::Status& failure) {
  const ReadBuffer sum(read.end - read.begin);
  std::memset(sum.data(), 0, static_cast<size_t>(read.end - read.begin));
  absl::Status status;
  for (size_t p = 0; p < parts.size(); ++p) {
    const Part& part = parts[p];
    for (size_t s = 0; s < part.sources.size(); ++s) {
      const Source& source = part.sources[s];
      if (source.item < 0) continue;
      const int from = From(transport_.rank(), source, round);
      absl::StatusOr<std::string> bytes = "";
      if (from == transport_.rank()) {
        bytes = Read(source);
      } else {
        absl::StatusOr<std::string> message =
            transport_.ReceiveTagged(from, Tag(round, p, s), patience_);
        if (!message.ok()) return message.status();
        if (!message->empty() && (*message)[0] == '\1') {
          bytes = message->substr(1);
        } else {
          bytes = absl::DataLossError(message->substr(message->empty() ? 0 : 1));
        }
      }
      if (bytes.ok() && static_cast<int64_t>(bytes->size()) != source.end - source.begin) {
        bytes = absl::InternalError("another number of bytes came than was asked for");
      }
      if (!bytes.ok()) {
        status.Update(bytes.status());
        if (source.number < 0) {
          places_.InsertBad(source.item, source.place, source.begin, source.end, bad);
        } else {
          bad.insert({source.item, source.place, source.number});
        }
        continue;  // the rest is on its way as well
      }
      Multiplier(part.factors[s])
          .AddProduct(bytes->data(), sum.data() + (part.begin - read.begin),
                      static_cast<int64_t>(bytes->size()));
    }
  }
  if (status.ok()) {
    status = CheckChunks(manifest_, read,
                         places_.PathOf(read.file, Places::kComputed - parts[0].group), sum.data());
    for (const Part& part : parts) {
      if (status.ok()) break;
      places_.InsertBad(read.file, Places::kComputed - part.group, part.begin, part.end, bad);
    }
  }
  if (!status.ok()) {
    failure.Update(status);
    again.push_back(read);
    return absl::OkStatus();
  }
  CopyToRegions(read, sum.data());
  return absl::OkStatus();
}

}  // namespace longspan
