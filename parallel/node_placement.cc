#include "parallel/node_placement.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

namespace longspan {
namespace {

// Neighbouring ranks that rings join.
struct Block {
  int first = 0, size = 0;
};

std::vector<Block> BlocksOf(const PlanOutline& outline) {
  const size_t ranks = outline.micro_batches.size();
  std::vector<int> opened(ranks + 1, 0);  // rings that begin less those that end at a rank
  for (const PlanOutline::Ring& ring : outline.rings) {
    const auto [low, high] = std::minmax_element(ring.ranks.begin(), ring.ranks.end());
    ++opened[*low];
    --opened[*high];
  }
  std::vector<Block> blocks;
  int across = 0;  // rings that join this rank with the one before
  for (size_t rank = 0; rank < ranks; ++rank) {
    if (across == 0) blocks.push_back({static_cast<int>(rank), 0});
    ++blocks.back().size;
    across += opened[rank];
  }
  return blocks;
}

int64_t Crossings(const PlanOutline& outline, const std::vector<int>& line, int ranks_per_node) {
  int64_t crossings = 0;
  for (const PlanOutline::Ring& ring : outline.rings) {
    for (size_t i = 0; i < ring.ranks.size(); ++i) {
      crossings += line[ring.ranks[i]] / ranks_per_node !=
                   line[ring.ranks[(i + 1) % ring.ranks.size()]] / ranks_per_node;
    }
  }
  return crossings;
}

// New first rank of each block; nothing if the narrow ones do not fit between nodes' borders.
std::optional<std::vector<int>> Pack(const std::vector<Block>& blocks, int ranks,
                                     int ranks_per_node) {
  const int nodes = (ranks + ranks_per_node - 1) / ranks_per_node;
  std::vector<int> room(nodes, ranks_per_node);
  room.back() = ranks - (nodes - 1) * ranks_per_node;
  std::vector<size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return blocks[a].size > blocks[b].size; });
  std::vector<int> first(blocks.size());
  const auto take = [&](int node, int size) {
    const int end = std::min(ranks, (node + 1) * ranks_per_node);
    const int at = end - room[node];
    room[node] -= size;
    return at;
  };
  int next_node = 0;
  for (const size_t b : order) {
    const int size = blocks[b].size;
    if (size >= ranks_per_node) {
      if (next_node * ranks_per_node + size > ranks) return std::nullopt;
      first[b] = next_node * ranks_per_node;
      for (int left = size; left > 0; ++next_node) {
        const int taken = std::min(left, room[next_node]);
        take(next_node, taken);
        left -= taken;
      }
      continue;
    }
    int best = -1;
    for (int node = 0; node < nodes; ++node) {
      if (room[node] >= size && (best < 0 || room[node] < room[best])) best = node;
      if (best >= 0 && room[best] == size) break;
    }
    if (best < 0) return std::nullopt;
    first[b] = take(best, size);
  }
  return first;
}

}  // namespace

std::vector<int> SpeedOrder(const IntegerCostModel& cost, int ranks, int ranks_per_node) {
  std::vector<int> line(ranks);
  std::iota(line.begin(), line.end(), 0);
  if (cost.equal_speeds()) return line;
  const int node_size = std::max(1, ranks_per_node);
  std::vector<int64_t> slowest((ranks + node_size - 1) / node_size, INT64_MAX);
  for (int rank = 0; rank < ranks; ++rank) {
    slowest[rank / node_size] = std::min(slowest[rank / node_size], cost.speed(rank));
  }
  std::stable_sort(line.begin(), line.end(), [&](int a, int b) {
    const int node_a = a / node_size, node_b = b / node_size;
    if (slowest[node_a] != slowest[node_b]) return slowest[node_a] > slowest[node_b];
    return node_a != node_b ? node_a < node_b : cost.speed(a) > cost.speed(b);
  });
  return line;
}

void Renumber(PlanOutline& outline, const std::vector<int>& line) {
  if (std::is_sorted(line.begin(), line.end())) return;
  for (PlanOutline::Ring& ring : outline.rings) {
    for (int& rank : ring.ranks) rank = line[rank];
  }
  std::vector<std::vector<PlanOutline::MicroBatch>> micro_batches(line.size());
  for (size_t i = 0; i < line.size(); ++i) {
    micro_batches[line[i]] = std::move(outline.micro_batches[i]);
  }
  outline.micro_batches = std::move(micro_batches);
}

void AlignToNodes(PlanOutline& outline, int ranks_per_node) {
  const int ranks = static_cast<int>(outline.micro_batches.size());
  if (ranks_per_node <= 0 || ranks_per_node >= ranks || outline.rings.empty()) return;
  const std::vector<Block> blocks = BlocksOf(outline);
  const std::optional<std::vector<int>> firsts = Pack(blocks, ranks, ranks_per_node);
  if (!firsts.has_value()) return;
  std::vector<int> line(ranks), same(ranks);
  std::iota(same.begin(), same.end(), 0);
  for (size_t b = 0; b < blocks.size(); ++b) {
    for (int i = 0; i < blocks[b].size; ++i) line[blocks[b].first + i] = (*firsts)[b] + i;
  }
  if (Crossings(outline, line, ranks_per_node) < Crossings(outline, same, ranks_per_node)) {
    Renumber(outline, line);
  }
}

}  // namespace longspan
