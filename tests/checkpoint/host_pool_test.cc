// The pool, over every order of events that a few small pipelines can have, and from many threads.
#include "checkpoint/host_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "checkpoint/storage.h"

namespace longspan {
namespace {

constexpr int64_t kChunk = kStorageAlignment;

TEST(HostPoolTest, ChunksAreAlignedAndApartAndCounted) {
  MemoryTable table;
  {
    auto pool = HostPool::Create(table, 3, kChunk);
    ASSERT_TRUE(pool.ok()) << pool.status();
    std::set<char*> chunks;
    while (char* chunk = (*pool)->TryTake()) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(chunk) % kStorageAlignment, 0u);
      EXPECT_GE(chunk, (*pool)->memory());
      EXPECT_LE(chunk + kChunk, (*pool)->memory() + (*pool)->bytes());
      std::memset(chunk, 1, kChunk);
      chunks.insert(chunk);
    }
    EXPECT_EQ(chunks.size(), 3u);
    EXPECT_EQ((*pool)->out(), 3);
    ASSERT_EQ(table.Rows().size(), 1u);
    EXPECT_EQ(table.Rows()[0].tag, "checkpoint pool");
    EXPECT_EQ(table.current_bytes(), 3 * kChunk + kStorageAlignment);
    for (char* chunk : chunks) (*pool)->Give(chunk);
  }
  EXPECT_EQ(table.current_bytes(), 0);
}

// A pipeline of `pieces` pieces through a pool of `chunks`: the copier takes a chunk for the next
// piece, fills it and hands it on; the writer starts writes in order; a write that was started may
// end at any time. Every reachable state, for every order in which writes end.
struct Model {
  struct State {
    int taken = 0, started = 0;  // pieces so far, in order
    std::vector<int> writing;    // pieces whose write is under way
    std::vector<int> written;    // in the order in which they ended
    bool operator<(const State& other) const {
      return std::tie(taken, started, writing, written) <
             std::tie(other.taken, other.started, other.writing, other.written);
    }
  };
  int pieces, chunks;
  std::set<std::vector<int>> orders;  // of complete runs
  int64_t runs = 0, blocked = 0;

  // Replays a history of events on a real pool, with the invariant checked after each: no chunk
  // that is out is handed out again, and what it holds stays until its write has ended.
  using Event = std::pair<char, int>;  // 't'ake, 's'tart, 'e'nd of piece
  void Replay(const std::vector<Event>& history) {
    MemoryTable table;
    auto pool = HostPool::Create(table, chunks, kChunk);
    ASSERT_TRUE(pool.ok());
    std::map<int, char*> held;  // by piece
    for (const auto& [kind, piece] : history) {
      if (kind == 't') {
        char* chunk = (*pool)->TryTake();
        ASSERT_NE(chunk, nullptr);
        for (const auto& [other, at] : held) ASSERT_NE(at, chunk) << other << " and " << piece;
        std::memset(chunk, piece + 1, kChunk);
        held[piece] = chunk;
      } else if (kind == 'e') {
        for (int64_t i = 0; i < kChunk; i += 512) ASSERT_EQ(held[piece][i], piece + 1);
        (*pool)->Give(held[piece]);
        held.erase(piece);
      }
      ASSERT_EQ((*pool)->out(), static_cast<int64_t>(held.size()));
      if (static_cast<int>(held.size()) == chunks) {
        ASSERT_EQ((*pool)->TryTake(), nullptr);
        ++blocked;
      }
    }
    ASSERT_TRUE(held.empty());
  }

  void Explore(const State& state, std::vector<Event>& history) {
    if (testing::Test::HasFatalFailure()) return;
    if (static_cast<int>(state.written.size()) == pieces) {
      ++runs;
      orders.insert(state.written);
      Replay(history);
      return;
    }
    bool moved = false;
    const auto go = [&](const State& next, Event event) {
      moved = true;
      history.push_back(event);
      Explore(next, history);
      history.pop_back();
    };
    const int out = state.taken - static_cast<int>(state.written.size());
    if (state.taken < pieces && out < chunks) {
      State next = state;
      go((++next.taken, next), {'t', state.taken});
    }
    if (state.started < state.taken) {
      State next = state;
      next.writing.push_back(next.started++);
      go(next, {'s', state.started});
    }
    for (size_t i = 0; i < state.writing.size(); ++i) {
      State next = state;
      next.written.push_back(state.writing[i]);
      next.writing.erase(next.writing.begin() + static_cast<int64_t>(i));
      go(next, {'e', state.writing[i]});
    }
    ASSERT_TRUE(moved) << "a state from which nothing can happen";
  }
};

TEST(HostPoolTest, EveryOrderOfSmallPipelines) {
  for (int chunks = 1; chunks <= 3; ++chunks) {
    for (int pieces = 1; pieces <= 4; ++pieces) {
      Model model{pieces, chunks, {}, 0, 0};
      std::vector<Model::Event> history;
      model.Explore({}, history);
      ASSERT_FALSE(HasFatalFailure()) << chunks << " chunks, " << pieces << " pieces";
      EXPECT_GE(model.runs, 1);
      if (chunks == 1) {
        EXPECT_EQ(model.orders.size(), 1u) << "one chunk keeps the order";
      }
      if (chunks == 3 && pieces == 3) {
        EXPECT_EQ(model.orders.size(), 6u);
      }
      EXPECT_EQ(model.blocked > 0, pieces >= chunks);
    }
  }
}

TEST(HostPoolTest, ManyThreadsShareFewChunks) {
  MemoryTable table;
  auto pool = HostPool::Create(table, 2, kChunk);
  ASSERT_TRUE(pool.ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        char* chunk = (*pool)->Take();
        std::memset(chunk, t * 50 + i % 50, kChunk);
        EXPECT_EQ(chunk[0], chunk[kChunk - 1]);
        (*pool)->Give(chunk);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ((*pool)->out(), 0);
  EXPECT_GE((*pool)->waited_seconds(), 0);
}

TEST(HostPoolDeathTest, AChunkComesBackOnce) {
  MemoryTable table;
  auto pool = HostPool::Create(table, 2, kChunk);
  char* chunk = (*pool)->Take();
  (*pool)->Give(chunk);
  EXPECT_DEATH((*pool)->Give(chunk), "comes back once");
  EXPECT_DEATH((*pool)->Give(chunk + 1), "comes back once");
}

}  // namespace
}  // namespace longspan
