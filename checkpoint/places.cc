#include "checkpoint/places.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/step_directory.h"

namespace longspan {

Places::Places(const FoundCheckpoint& found, const std::vector<int>& nodes,
               const Manifest& manifest)
    : found_(found), nodes_(nodes), manifest_(manifest), holders_(manifest.files.size()) {
  ranks_.resize(static_cast<size_t>(*std::max_element(nodes.begin(), nodes.end())) + 1);
  for (size_t rank = 0; rank < nodes.size(); ++rank) {
    ranks_[nodes[rank]].push_back(static_cast<int>(rank));
  }
  std::map<std::string, int> index;
  for (size_t file = 0; file < manifest.files.size(); ++file) {
    index[manifest.files[file].name] = static_cast<int>(file);
  }
  for (size_t i = 0; i < found.copies.size(); ++i) {
    for (const auto& [name, bytes] : found.copies[i].files) {
      const auto file = index.find(name);
      if (file == index.end() || manifest.files[file->second].bytes != bytes) continue;
      holders_[file->second].push_back(static_cast<int>(i));
    }
    for (const std::string& text : found.copies[i].parity) AddParity(static_cast<int>(i), text);
  }
}

void Places::AddParity(int copy, const std::string& text) {
  const absl::StatusOr<ParityDescription> description = ParseParity(text, "parity");
  // What does not belong to these very files is of no use.
  if (!description.ok() || description->run_id != manifest_.run_id ||
      description->step.step != manifest_.step ||
      description->step.generation != manifest_.generation) {
    return;
  }
  std::vector<int> files;
  for (size_t member = 0; member < description->files.size(); ++member) {
    const std::string& name = description->files[member];
    int file = -1;
    if (!name.empty()) {
      const auto entry = std::find_if(manifest_.files.begin(), manifest_.files.end(),
                                      [&](const ManifestFile& each) { return each.name == name; });
      if (entry == manifest_.files.end() ||
          entry->bytes != description->layout.file_bytes[member]) {
        return;
      }
      file = static_cast<int>(entry - manifest_.files.begin());
    }
    files.push_back(file);
  }
  const std::string& tier = found_.copies[copy].tier;
  auto group = std::find_if(groups_.begin(), groups_.end(), [&](const ParityGroup& each) {
    return each.tier == tier && each.description.SameGroup(*description);
  });
  if (group == groups_.end()) {
    const std::vector<int> none(files.size(), -1);
    groups_.push_back({tier, *description, std::move(files), none, none});
    group = groups_.end() - 1;
  }
  group->items[description->member] =
      static_cast<int>(manifest_.files.size() + parity_names_.size());
  group->copies[description->member] = copy;
  parity_names_.push_back(ParityFileName(description->group, description->member));
}

bool Places::AnyBad(int file, int place, int64_t begin, int64_t end) const {
  const int64_t chunk = manifest_.chunk_bytes;
  const auto first = bad_.lower_bound({file, place, begin / chunk});
  return first != bad_.end() && first->item == file && first->place == place &&
         first->unit * chunk < end;
}

void Places::InsertBad(int file, int place, int64_t begin, int64_t end, std::set<Bad>& bad) const {
  const int64_t chunk = manifest_.chunk_bytes;
  for (int64_t unit = begin / chunk; unit * chunk < end; ++unit) bad.insert({file, place, unit});
}

std::optional<int> Places::Choose(int rank, int file, int64_t begin, int64_t end) const {
  std::optional<int> best;
  for (const int copy : holders_[file]) {
    if (AnyBad(file, copy, begin, end)) continue;
    // Tiers are told in order, nearest first.
    if (!best || (Here(rank, copy) && !Here(rank, *best))) best = copy;
  }
  if (best) return best;
  if (!found_.directory.empty() && !AnyBad(file, kShared, begin, end)) return kShared;
  return std::nullopt;
}

bool Places::Here(int rank, int place) const {
  return place == kShared || found_.copies[place].node == nodes_[rank];
}

int Places::ReaderOf(int rank, int place, int64_t nth) const {
  const std::vector<int>& readers = ranks_[found_.copies[place].node];
  return readers[static_cast<size_t>(rank + nth) % readers.size()];
}

std::string Places::PathOf(int item, int place) const {
  const auto files = static_cast<int>(manifest_.files.size());
  const std::string& name = item < files ? manifest_.files[item].name : parity_names_[item - files];
  if (place <= kComputed) return absl::StrCat("computed ", name);
  return JoinPath(place == kShared ? found_.directory : found_.copies[place].directory, name);
}

std::string Places::TextOf(int item, int place) const {
  const std::string path = PathOf(item, place);
  return place < 0 ? path : absl::StrCat(path, " of node ", found_.copies[place].node);
}

}  // namespace longspan
