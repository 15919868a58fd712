#include "checkpoint/erasure_groups.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "checkpoint/erasure_code.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/storage.h"

namespace longspan {
namespace {

int64_t RoundUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// A chunk, so that what is read to recover one is a chunk too; of files that are shorter than a
// cycle of chunks, the part that makes a cycle of them.
int64_t SymbolBytesFor(int64_t longest, int data) {
  return std::clamp(RoundUp((longest + data - 1) / data, kStorageAlignment), kStorageAlignment,
                    kChunkBytes);
}

}  // namespace

int64_t ErasureLayout::cycles() const {
  int64_t most = 0;
  for (int member = 0; member < members(); ++member) most = std::max(most, Symbols(member));
  return (most + data - 1) / data;
}

int64_t ErasureLayout::Symbols(int member) const {
  return (file_bytes[member] + symbol_bytes - 1) / symbol_bytes;
}

int64_t ErasureLayout::SymbolBytes(int member, int64_t number) const {
  return std::clamp<int64_t>(file_bytes[member] - number * symbol_bytes, 0, symbol_bytes);
}

absl::StatusOr<Erasure> ParseErasure(const std::string& text) {
  const size_t plus = text.find('+');
  const auto number = [](const std::string& digits) {
    const bool good = !digits.empty() && digits.size() <= 3 &&
                      digits.find_first_not_of("0123456789") == std::string::npos;
    return good ? std::stoi(digits) : 0;
  };
  Erasure erasure;
  if (plus != std::string::npos) {
    erasure.data = number(text.substr(0, plus));
    erasure.parity = number(text.substr(plus + 1));
  }
  if (erasure.data < 1 || erasure.parity < 1 || erasure.data + erasure.parity > kMostSymbols) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"4+1\" is wanted: of 5 nodes any 1 may be lost, for 1/4 more memory; at most ",
        kMostSymbols, " together"));
  }
  return erasure;
}

absl::StatusOr<std::vector<ErasureGroup>> ErasureGroups(const Erasure& erasure,
                                                        const std::vector<int>& nodes,
                                                        const std::vector<int64_t>& file_bytes) {
  const int count = nodes.empty() ? 0 : *std::max_element(nodes.begin(), nodes.end()) + 1;
  if (count <= erasure.parity) {
    return absl::InvalidArgumentError(
        absl::StrCat("erasure \"", erasure.data, "+", erasure.parity, "\" needs ",
                     erasure.parity + 1, " nodes at least, ", erasure.data + erasure.parity,
                     " to cost no more than it says; this job has ", count));
  }
  std::vector<std::vector<int>> ranks(count);  // of every node
  size_t most = 0;
  for (size_t rank = 0; rank < nodes.size(); ++rank) {
    ranks[nodes[rank]].push_back(static_cast<int>(rank));
    most = std::max(most, ranks[nodes[rank]].size());
  }
  const int parts = std::max(1, count / (erasure.data + erasure.parity));
  std::vector<ErasureGroup> groups;
  for (int part = 0; part < parts; ++part) {
    const int first = part * count / parts, end = (part + 1) * count / parts;
    if (end - first > kMostSymbols) {
      return absl::InvalidArgumentError(absl::StrCat(
          "erasure \"", erasure.data, "+", erasure.parity, "\" makes a group of ", end - first,
          " nodes, more than ", kMostSymbols, "; ask for smaller groups"));
    }
    for (size_t place = 0; place < most; ++place) {
      ErasureGroup group;
      group.index = static_cast<int>(groups.size());
      group.layout.parity = erasure.parity;
      group.layout.data = end - first - erasure.parity;
      int64_t longest = 0;
      for (int node = first; node < end; ++node) {
        ErasureGroup::Member member;
        if (place < ranks[node].size()) member.file = ranks[node][place];
        member.keeper = ranks[node][place % ranks[node].size()];
        group.members.push_back(member);
        group.layout.file_bytes.push_back(member.file < 0 ? 0 : file_bytes[member.file]);
        longest = std::max(longest, group.layout.file_bytes.back());
      }
      // Nodes of this part with so many ranks there are none.
      if (longest == 0) continue;
      group.layout.symbol_bytes = SymbolBytesFor(longest, group.layout.data);
      groups.push_back(std::move(group));
    }
  }
  return groups;
}

}  // namespace longspan
