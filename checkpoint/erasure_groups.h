// Which ranks protect each other's files by parity, and where every byte of parity lies.
//
// A group has s members on s different nodes. Of these, `parity` may be lost at a time: in every
// stripe `data` = s - parity members have a symbol of their files, the others a symbol of parity;
// from stripe to stripe the places go round, so that all members hold the same amount.
#ifndef LONGSPAN_CHECKPOINT_ERASURE_GROUPS_H_
#define LONGSPAN_CHECKPOINT_ERASURE_GROUPS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/tiers.h"

namespace longspan {

// A cycle is s stripes; in it, member i has data symbols d = 0 .. data - 1 of s - parity of them,
// one each, and keeps one parity symbol of each of the `parity` others. Symbols of a file are
// numbered from its beginning: number c * data + d is the d-th of cycle c. Files end where they
// end; what a stripe lacks counts as zeros.
struct ErasureLayout {
  int data = 0, parity = 0;
  int64_t symbol_bytes = 0;
  std::vector<int64_t> file_bytes;  // by member; 0 where a member has no file

  int members() const { return static_cast<int>(file_bytes.size()); }
  // Until the longest file has ended.
  int64_t cycles() const;
  // Of a member's file; the last one may be shorter than symbol_bytes.
  int64_t Symbols(int member) const;
  int64_t SymbolBytes(int member, int64_t number) const;
  // Of a cycle, the member that keeps parity symbol p of the stripe of which `member` has data
  // symbol d; and, of the same stripe, the one that has data symbol `other`.
  int KeeperOf(int member, int d, int p) const { return Wrap(member - parity - d + p); }
  int OtherOf(int member, int d, int other) const { return Wrap(member - d + other); }
  // The member that has data symbol d of the stripe of which `keeper` keeps parity symbol p.
  int SourceOf(int keeper, int p, int d) const { return Wrap(keeper - p + parity + d); }
  // All parity of a member: symbol p of cycle c is number c * parity + p.
  int64_t ParityBytes() const { return cycles() * parity * symbol_bytes; }

 private:
  int Wrap(int member) const { return (member % members() + members()) % members(); }
};

struct ErasureGroup {
  int index = 0;
  struct Member {
    int file = -1;   // the rank whose file it is; -1: none
    int keeper = 0;  // the rank, of the same node, that keeps the member's parity
  };
  std::vector<Member> members;
  ErasureLayout layout;
};

// The groups of a job, by the nodes of its ranks (NodesByHost). Nodes go in order into groups of
// erasure.data + erasure.parity, or, where they cannot be divided so, of a few more; if there are
// fewer nodes, into one group of all. The i-th ranks of a group's nodes are an ErasureGroup.
// InvalidArgument with fewer than erasure.parity + 1 nodes.
absl::StatusOr<std::vector<ErasureGroup>> ErasureGroups(const Erasure& erasure,
                                                        const std::vector<int>& nodes,
                                                        const std::vector<int64_t>& file_bytes);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_ERASURE_GROUPS_H_
