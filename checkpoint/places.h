// Places: where the bytes of one step may be had, and which of them were found to be bad. The same
// on all ranks of a restore, so that each knows what any other one asks of it.
#ifndef LONGSPAN_CHECKPOINT_PLACES_H_
#define LONGSPAN_CHECKPOINT_PLACES_H_

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/parity_file.h"
#include "checkpoint/tiers.h"

namespace longspan {

// Parity of a group of files of the step.
struct ParityGroup {
  std::string tier;
  ParityDescription description;  // that of any member
  std::vector<int> files;         // by member, index into Manifest::files; -1: none
  // By member: the item (see Places) and the copy that it is in; -1: not there.
  std::vector<int> items, copies;
};

// Thread-safety: as a const object.
class Places {
 public:
  // A place is an index into FoundCheckpoint::copies, the checkpoint directory, or a way to compute
  // it: kComputed - g, from the parity of groups()[g].
  static constexpr int kShared = -1, kComputed = -2;
  // An item is a file of the manifest, by its index, or a parity file: what Bad counts in are
  // chunks of the manifest, or parity symbols.
  struct Bad {
    int item = 0, place = 0;
    int64_t unit = 0;
    bool operator<(const Bad& other) const {
      return std::tie(item, place, unit) < std::tie(other.item, other.place, other.unit);
    }
  };

  // All outlive it.
  Places(const FoundCheckpoint& found, const std::vector<int>& nodes, const Manifest& manifest);

  // Where `rank` takes bytes [begin, end) of a file from: a tier of its own node, of another one,
  // or the checkpoint directory. Nothing where no place is left.
  std::optional<int> Choose(int rank, int file, int64_t begin, int64_t end) const;
  // Whether `rank` reads this place itself; and if not, the rank that does it, one of those on that
  // node, for the `nth` of its reads.
  bool Here(int rank, int place) const;
  int ReaderOf(int rank, int place, int64_t nth) const;
  std::string PathOf(int item, int place) const;
  // "PATH", or "PATH of node 3".
  std::string TextOf(int item, int place) const;

  const std::vector<ParityGroup>& groups() const { return groups_; }
  bool IsBad(int item, int place, int64_t unit) const {
    return bad_.count({item, place, unit}) > 0;
  }
  // Of bytes [begin, end) of a file.
  bool AnyBad(int file, int place, int64_t begin, int64_t end) const;
  void InsertBad(int file, int place, int64_t begin, int64_t end, std::set<Bad>& bad) const;
  // For what all ranks know to be bad.
  void Leave(const Bad& bad) { bad_.insert(bad); }

 private:
  void AddParity(int copy, const std::string& text);

  const FoundCheckpoint& found_;
  const std::vector<int>& nodes_;
  const Manifest& manifest_;
  std::vector<std::vector<int>> ranks_;    // by node
  std::vector<std::vector<int>> holders_;  // by file, the copies that have it, nearest tier first
  std::vector<std::string> parity_names_;  // of items after the files
  std::vector<ParityGroup> groups_;
  std::set<Bad> bad_;
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_PLACES_H_
