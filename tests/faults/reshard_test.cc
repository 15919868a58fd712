// Saved on n ranks, loaded on m, for every n and m from 1 to 8: random tensors, cut among the ranks
// at random places and in random order, come back bit by bit whatever the cuts were then and are
// now.
//
//   LONGSPAN_SEEDS   states for every pair
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/lazy_writer.h"
#include "checkpoint_scenario.h"
#include "parallel/transport/rank_threads.h"
#include "simulated_disk.h"

namespace longspan {
namespace {

constexpr int kMostRanks = 8;

struct Tensor {
  std::string group, name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::vector<char> bytes;

  int64_t elements() const {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  }
};

std::vector<Tensor> RandomTensors(std::mt19937_64& random) {
  constexpr DType kTypes[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kU8, DType::kI64};
  constexpr const char* kGroups[] = {"/parameters", "/optimizer/first_moment", "/counts"};
  std::vector<Tensor> tensors(1 + random() % 7);
  for (size_t t = 0; t < tensors.size(); ++t) {
    Tensor& tensor = tensors[t];
    tensor.group = kGroups[random() % 3];
    tensor.name = absl::StrCat("layers.", t, ".weight");
    tensor.dtype = kTypes[random() % 5];
    const size_t dimensions = random() % 4;
    for (size_t d = 0; d < dimensions; ++d) {
      // Now and then nothing at all, or less than there are ranks.
      tensor.shape.push_back(static_cast<int64_t>(random() % 40));
    }
    tensor.bytes.resize(static_cast<size_t>(tensor.elements() * SizeOf(tensor.dtype)));
    for (char& byte : tensor.bytes) byte = static_cast<char>(random());
  }
  return tensors;
}

// What each rank holds. Memory is that of the regions' `owned`.
struct Shard {
  std::vector<StateRegion> regions;
  std::vector<std::vector<char>> owned;
};

std::vector<Shard> RandomCuts(const std::vector<Tensor>& tensors, int ranks, bool fill,
                              std::mt19937_64& random) {
  std::vector<Shard> shards(ranks);
  for (const Tensor& tensor : tensors) {
    const int64_t elements = tensor.elements();
    std::vector<int64_t> cuts = {0, elements};
    for (int i = 1; i < ranks; ++i) {
      cuts.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(elements + 1)));
    }
    std::sort(cuts.begin(), cuts.end());
    std::vector<int> owners(ranks);
    std::iota(owners.begin(), owners.end(), 0);
    std::shuffle(owners.begin(), owners.end(), random);
    for (int part = 0; part < ranks; ++part) {
      Shard& shard = shards[owners[part]];
      StateRegion region{tensor.group, tensor.name, tensor.dtype,
                         tensor.shape, cuts[part],  cuts[part + 1]};
      const int64_t size = SizeOf(tensor.dtype);
      auto& memory = shard.owned.emplace_back(
          static_cast<size_t>((region.flat_end - region.flat_begin) * size), '\x5a');
      if (fill && !memory.empty()) {
        std::memcpy(memory.data(), tensor.bytes.data() + region.flat_begin * size, memory.size());
      }
      region.data = memory.data();
      shard.regions.push_back(region);
    }
  }
  return shards;
}

void Save(SimulatedDisk& disk, SaveMode mode, int ranks, int64_t step,
          const std::vector<Tensor>& tensors, std::mt19937_64& random) {
  const std::vector<Shard> shards = RandomCuts(tensors, ranks, true, random);
  CheckpointOptions options;
  options.directory = kCheckpoints;
  options.run_id = "reshard";
  options.keep_last = 1;
  RankThreadOptions patience;
  patience.timeout = absl::Seconds(60);
  const absl::Status run = RunRanks(
      ranks,
      [&](Transport& transport, Device& device) -> absl::Status {
        const std::vector<StateRegion>& regions = shards[transport.rank()].regions;
        if (mode == SaveMode::kSynchronous) {
          auto writer = CheckpointWriter::Open(disk, options, transport);
          if (!writer.ok()) return writer.status();
          return (*writer)->Save(step, regions, "{}").status();
        }
        auto writer =
            LazyCheckpointWriter::Open(disk, options, {}, regions, device.memory(), transport);
        if (!writer.ok()) return writer.status();
        (*writer)->Snapshot({step, nullptr, Event(), false});
        (*writer)->Drain();
        const absl::Status saved = (*writer)->TakeFinished().at(0).status;
        return saved.ok() ? transport.Barrier() : saved;
      },
      patience);
  ASSERT_TRUE(run.ok()) << run;
}

void Load(SimulatedDisk& disk, int ranks, int64_t step, const std::vector<Tensor>& tensors,
          std::mt19937_64& random) {
  const auto found = ListCheckpoints(disk, kCheckpoints);
  ASSERT_TRUE(found.ok() && !found->empty());
  ASSERT_EQ(found->front().step, step);
  const std::vector<Shard> shards = RandomCuts(tensors, ranks, false, random);
  for (const Shard& shard : shards) {
    const absl::Status status = RestoreRegions(disk, found->front(), shard.regions);
    ASSERT_TRUE(status.ok()) << status;
    for (size_t t = 0; t < tensors.size(); ++t) {
      const StateRegion& region = shard.regions[t];
      const char* expected = tensors[t].bytes.data() + region.flat_begin * SizeOf(region.dtype);
      ASSERT_TRUE(std::equal(shard.owned[t].begin(), shard.owned[t].end(), expected))
          << region.tensor << " [" << region.flat_begin << ", " << region.flat_end << ")";
    }
  }
}

TEST(ReshardTest, EveryPairOfRankCounts) {
  const char* text = std::getenv("LONGSPAN_SEEDS");
  const int64_t seeds = text == nullptr ? 2 : std::atoll(text);
  int64_t pairs = 0;
  for (int64_t seed = 1; seed <= seeds; ++seed) {
    for (int saved = 1; saved <= kMostRanks; ++saved) {
      SCOPED_TRACE(absl::StrCat("seed ", seed, ", saved on ", saved));
      std::mt19937_64 random(static_cast<uint64_t>(seed * 100 + saved));
      const std::vector<Tensor> tensors = RandomTensors(random);
      SimulatedDisk disk;
      const SaveMode mode = seed % 2 == 0 ? SaveMode::kLazy : SaveMode::kSynchronous;
      Save(disk, mode, saved, 1, tensors, random);
      for (int loaded = 1; loaded <= kMostRanks && !HasFatalFailure(); ++loaded, ++pairs) {
        SCOPED_TRACE(absl::StrCat("loaded on ", loaded));
        Load(disk, loaded, 1, tensors, random);
      }
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_EQ(pairs, seeds * kMostRanks * kMostRanks);
}

}  // namespace
}  // namespace longspan
