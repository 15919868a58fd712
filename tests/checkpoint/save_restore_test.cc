#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <filesystem>
#include <functional>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checksum.h"
#include "checkpoint/manifest.h"
#include "checkpoint/step_directory.h"
#include "parallel/transport/rank_threads.h"
#include "scratch_directory.h"
#include "sharded_state.h"

namespace longspan {
namespace {

RankThreadOptions Patience() {
  RankThreadOptions options;
  options.timeout = absl::Seconds(60);
  return options;
}

CheckpointOptions Options(const std::string& directory) {
  CheckpointOptions options;
  options.directory = directory;
  options.run_id = "test-run";
  return options;
}

// One attempt of `ranks` ranks that saves `steps`.
absl::Status SaveSteps(const CheckpointOptions& options, int ranks,
                       const std::vector<int64_t>& steps, int64_t scale = 1) {
  return RunRanks(
      ranks,
      [&](Transport& transport, Device&) -> absl::Status {
        auto writer = CheckpointWriter::Open(PosixFileSystem(), options, transport);
        if (!writer.ok()) return writer.status();
        for (int64_t step : steps) {
          const ShardedState state(transport.rank(), ranks, step, scale);
          auto report = (*writer)->Save(step, state.regions(), StateMetadata(step));
          if (!report.ok()) return report.status();
          if (!report->warnings.empty()) return absl::UnknownError(report->warnings.front());
          if (report->bytes <= 0) return absl::UnknownError("no bytes");
        }
        return absl::OkStatus();
      },
      Patience());
}

// Restores `info` on `ranks` ranks, one after another, and compares.
void ExpectRestores(const CheckpointInfo& info, int ranks, int64_t scale = 1) {
  for (int rank = 0; rank < ranks; ++rank) {
    ShardedState state(rank, ranks, info.step, scale);
    state.Clear();
    const absl::Status status = RestoreRegions(PosixFileSystem(), info, state.regions());
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(state.DifferenceFrom(info.step), "") << "rank " << rank << " of " << ranks;
  }
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

void WriteFile(const std::string& path, const std::string& content) {
  if (PosixFileSystem().Exists(path)) {
    ASSERT_TRUE(PosixFileSystem().Remove(path).ok());
  }
  auto file = PosixFileSystem().Create(path);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->WriteAt(0, content.data(), static_cast<int64_t>(content.size())).ok());
}

TEST(SaveRestoreTest, AnyNumberOfRanksToAnyOther) {
  std::string state_hash;
  for (int saved = 1; saved <= 5; ++saved) {
    ScratchDirectory scratch;
    ASSERT_TRUE(SaveSteps(Options(scratch / "checkpoints"), saved, {7}).ok());
    const auto found = ListCheckpoints(PosixFileSystem(), scratch / "checkpoints");
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_EQ(found->size(), 1u);
    const CheckpointInfo& info = found->front();
    EXPECT_EQ(info.step, 7);
    EXPECT_EQ(info.generation, 1);
    EXPECT_EQ(info.ranks, saved);
    EXPECT_EQ(info.run_id, "test-run");
    EXPECT_EQ(info.metadata, StateMetadata(7));
    EXPECT_TRUE(VerifyCheckpoint(PosixFileSystem(), info).ok());
    for (int loaded = 1; loaded <= 5; ++loaded) ExpectRestores(info, loaded);

    const auto manifest = ReadCommittedManifest(PosixFileSystem(), info.directory);
    ASSERT_TRUE(manifest.ok());
    if (state_hash.empty()) state_hash = Hex64(manifest->state_hash);
    EXPECT_EQ(Hex64(manifest->state_hash), state_hash) << "depends on the number of ranks";
  }
}

TEST(SaveRestoreTest, LargeFilesAndChunksThatAreReadOnce) {
  // 23 MB: files of several chunks and writes, regions that end nowhere near a border.
  constexpr int64_t kScale = 12345;
  ScratchDirectory scratch;
  ASSERT_TRUE(SaveSteps(Options(scratch / "checkpoints"), 2, {3}, kScale).ok());
  const auto found = ListCheckpoints(PosixFileSystem(), scratch / "checkpoints");
  ASSERT_TRUE(found.ok() && found->size() == 1);
  EXPECT_TRUE(VerifyCheckpoint(PosixFileSystem(), found->front()).ok());
  for (int ranks : {1, 3}) ExpectRestores(found->front(), ranks, kScale);
}

// Counts bytes read; files ask for reads of `unit`.
class CountingFiles : public FileSystem {
 public:
  explicit CountingFiles(int64_t unit = File::kLongRead) : unit_(unit) {}
  class Reader : public File {
   public:
    Reader(CountingFiles& owner, std::unique_ptr<File> file)
        : owner_(owner), file_(std::move(file)) {}
    absl::Status WriteAt(int64_t, const void*, int64_t) override {
      return absl::UnimplementedError("read only");
    }
    absl::Status ReadAt(int64_t offset, void* data, int64_t bytes) override {
      owner_.bytes_ += bytes;
      return file_->ReadAt(offset, data, bytes);
    }
    int64_t ReadUnit() override { return owner_.unit_; }
    absl::StatusOr<int64_t> Size() override { return file_->Size(); }
    absl::Status Reserve(int64_t) override { return absl::UnimplementedError("read only"); }
    absl::Status Sync() override { return absl::UnimplementedError("read only"); }

   private:
    CountingFiles& owner_;
    std::unique_ptr<File> file_;
  };
  absl::StatusOr<std::unique_ptr<File>> Create(const std::string&) override {
    return absl::UnimplementedError("read only");
  }
  absl::StatusOr<std::unique_ptr<File>> OpenForRead(const std::string& path) override {
    auto file = PosixFileSystem().OpenForRead(path);
    if (!file.ok()) return file.status();
    return std::make_unique<Reader>(*this, *std::move(file));
  }
  absl::StatusOr<std::unique_ptr<File>> OpenForWrite(const std::string&) override {
    return absl::UnimplementedError("read only");
  }
  absl::Status CreateDirectory(const std::string&) override {
    return absl::UnimplementedError("read only");
  }
  absl::Status SyncDirectory(const std::string&) override {
    return absl::UnimplementedError("read only");
  }
  absl::Status Rename(const std::string&, const std::string&) override {
    return absl::UnimplementedError("read only");
  }
  absl::Status Remove(const std::string&) override { return absl::UnimplementedError("read only"); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    return PosixFileSystem().List(path);
  }
  bool Exists(const std::string& path) override { return PosixFileSystem().Exists(path); }
  int64_t bytes() const { return bytes_; }

 private:
  const int64_t unit_;
  std::atomic<int64_t> bytes_{0};
};

TEST(SaveRestoreTest, ARankReadsOnlyTheChunksItNeeds) {
  constexpr int64_t kChunk = int64_t{4} << 20;
  ScratchDirectory scratch;
  std::vector<float> values(24 * (1 << 20) / sizeof(float));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const int64_t elements = static_cast<int64_t>(values.size());
  const StateRegion whole = {"/parameters", "w",          DType::kF32, {elements}, 0,
                             elements,      values.data()};
  ASSERT_TRUE(RunRanks(1, [&](Transport& transport, Device&) -> absl::Status {
                auto writer = CheckpointWriter::Open(PosixFileSystem(),
                                                     Options(scratch / "checkpoints"), transport);
                if (!writer.ok()) return writer.status();
                return (*writer)->Save(1, {whole}, "{}").status();
              }).ok());
  const auto info =
      ReadCheckpointInfo(PosixFileSystem(), scratch / "checkpoints/step-00000001.g0001");
  ASSERT_TRUE(info.ok()) << info.status();
  std::vector<float> part(1000);
  StateRegion wanted = whole;
  wanted.flat_begin = elements / 2;
  wanted.flat_end = elements / 2 + 1000;
  wanted.data = part.data();
  CountingFiles files;
  ASSERT_TRUE(RestoreRegions(files, *info, {wanted}).ok());
  EXPECT_TRUE(std::equal(part.begin(), part.end(), values.begin() + elements / 2));
  EXPECT_LE(files.bytes(), 2 * kChunk + (1 << 16)) << "manifest, commit record and the chunks";

  CountingFiles all;
  std::vector<float> back(values.size());
  wanted = whole;
  wanted.data = back.data();
  ASSERT_TRUE(RestoreRegions(all, *info, {wanted}).ok());
  EXPECT_EQ(back, values);
  EXPECT_LE(all.bytes(), elements * 4 + (1 << 16)) << "each byte once";
}

TEST(SaveRestoreTest, ReadsInPartsOfAnySize) {
  constexpr int64_t kScale = 12345;  // 23 MB
  ScratchDirectory scratch;
  ASSERT_TRUE(SaveSteps(Options(scratch / "checkpoints"), 2, {3}, kScale).ok());
  const auto info =
      ReadCheckpointInfo(PosixFileSystem(), scratch / "checkpoints/step-00000003.g0001");
  ASSERT_TRUE(info.ok()) << info.status();
  // Parts that end at borders of chunks, and parts that do not.
  for (const int64_t unit : {int64_t{256} << 10, int64_t{99'991}, int64_t{3'000'017}}) {
    CountingFiles files(unit);
    ShardedState state(1, 3, 3, kScale);
    state.Clear();
    const absl::Status status = RestoreRegions(files, *info, state.regions());
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(state.DifferenceFrom(3), "") << unit;
  }

  // A damaged byte in any part of a chunk is found, and the chunk named.
  const std::string path = info->directory + "/rank-00000.h5";
  auto file = PosixFileSystem().OpenForWrite(path);
  ASSERT_TRUE(file.ok()) << file.status();
  for (const int64_t at :
       {int64_t{4} << 20, (int64_t{4} << 20) + 1'234'567, (int64_t{8} << 20) - 1}) {
    char byte = 0;
    ASSERT_TRUE((*file)->ReadAt(at, &byte, 1).ok());
    const char other = static_cast<char>(byte ^ 8);
    ASSERT_TRUE((*file)->WriteAt(at, &other, 1).ok());
    CountingFiles files(int64_t{256} << 10);
    ShardedState state(0, 1, 3, kScale);
    const absl::Status status = RestoreRegions(files, *info, state.regions());
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_NE(status.message().find("rank-00000.h5: bytes [4194304, 8388608)"),
              absl::string_view::npos)
        << status;
    ASSERT_TRUE((*file)->WriteAt(at, &byte, 1).ok());
  }
}

TEST(SaveRestoreTest, NewestIsTheHighestGenerationThenStep) {
  ScratchDirectory scratch;
  const CheckpointOptions options = Options(scratch / "checkpoints");
  ASSERT_TRUE(SaveSteps(options, 2, {100, 200}).ok());
  ASSERT_TRUE(SaveSteps(options, 3, {150}).ok());
  const auto found = ListCheckpoints(PosixFileSystem(), options.directory);
  ASSERT_TRUE(found.ok());
  std::vector<std::pair<int64_t, int64_t>> order;
  for (const CheckpointInfo& info : *found) order.push_back({info.generation, info.step});
  EXPECT_EQ(order, (std::vector<std::pair<int64_t, int64_t>>{{2, 150}, {1, 200}, {1, 100}}));
  EXPECT_EQ(*PosixFileSystem().ReadAll(options.directory + "/latest"), "step-00000150.g0002\n");
  EXPECT_TRUE(PosixFileSystem().Exists(options.directory + "/generation-0001"));
  EXPECT_TRUE(PosixFileSystem().Exists(options.directory + "/generation-0002"));
}

TEST(SaveRestoreTest, NoDirectoryIsNoCheckpoint) {
  ScratchDirectory scratch;
  const auto found = ListCheckpoints(PosixFileSystem(), scratch / "none");
  ASSERT_TRUE(found.ok());
  EXPECT_TRUE(found->empty());
}

TEST(SaveRestoreTest, ListsTensorsOnce) {
  ScratchDirectory scratch;
  ASSERT_TRUE(SaveSteps(Options(scratch / "checkpoints"), 3, {1}).ok());
  const auto info =
      ReadCheckpointInfo(PosixFileSystem(), scratch / "checkpoints/step-00000001.g0001");
  ASSERT_TRUE(info.ok());
  const auto tensors = ListTensors(PosixFileSystem(), *info);
  ASSERT_TRUE(tensors.ok());
  const ShardedState whole(0, 1, 1);
  ASSERT_EQ(tensors->size(), whole.regions().size());
  for (const StateRegion& region : whole.regions()) {
    const auto found =
        std::find_if(tensors->begin(), tensors->end(), [&](const CheckpointTensor& tensor) {
          return tensor.group == region.group && tensor.tensor == region.tensor;
        });
    ASSERT_NE(found, tensors->end()) << region.tensor;
    EXPECT_EQ(found->dtype, region.dtype);
    EXPECT_EQ(found->global_shape, region.global_shape);
  }
}

TEST(SaveRestoreTest, WhatDoesNotFitIsNamed) {
  ScratchDirectory scratch;
  ASSERT_TRUE(SaveSteps(Options(scratch / "checkpoints"), 2, {1}).ok());
  const auto info =
      ReadCheckpointInfo(PosixFileSystem(), scratch / "checkpoints/step-00000001.g0001");
  ASSERT_TRUE(info.ok());
  std::vector<float> memory(7);
  const StateRegion good = {"/parameters", "norm.weight", DType::kF32, {7}, 0, 7, memory.data()};
  EXPECT_TRUE(RestoreRegions(PosixFileSystem(), *info, {good}).ok());

  StateRegion missing = good;
  missing.tensor = "bias";
  absl::Status status = RestoreRegions(PosixFileSystem(), *info, {good, missing});
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_NE(status.message().find("/parameters/bias"), absl::string_view::npos);

  StateRegion shape = good;
  shape.global_shape = {8};
  status = RestoreRegions(PosixFileSystem(), *info, {shape});
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_NE(status.message().find("[7]"), absl::string_view::npos) << status;
  EXPECT_NE(status.message().find("[8]"), absl::string_view::npos) << status;

  StateRegion dtype = good;
  dtype.dtype = DType::kI32;
  EXPECT_TRUE(absl::IsInvalidArgument(RestoreRegions(PosixFileSystem(), *info, {dtype})));
  StateRegion range = good;
  range.flat_end = 8;
  EXPECT_TRUE(absl::IsInvalidArgument(RestoreRegions(PosixFileSystem(), *info, {range})));
}

// Runs one save on two ranks and collects how it ended on each.
std::array<absl::Status, 2> SaveOnTwo(
    const CheckpointOptions& options,
    const std::function<absl::Status(CheckpointWriter&, int rank)>& body) {
  std::array<absl::Status, 2> outcome;
  const absl::Status run = RunRanks(
      2,
      [&](Transport& transport, Device&) -> absl::Status {
        auto writer = CheckpointWriter::Open(PosixFileSystem(), options, transport);
        if (!writer.ok()) return writer.status();
        outcome[transport.rank()] = body(**writer, transport.rank());
        return absl::OkStatus();
      },
      Patience());
  EXPECT_TRUE(run.ok()) << run;
  return outcome;
}

TEST(SaveRestoreTest, EveryRankLearnsWhatOneDidWrong) {
  ScratchDirectory scratch;
  const CheckpointOptions options = Options(scratch / "checkpoints");
  const auto save = [&](CheckpointWriter& writer, int rank, int64_t step,
                        const std::string& metadata, int shards) {
    const ShardedState state(rank, shards, step);
    return writer.Save(step, state.regions(), metadata).status();
  };
  struct Case {
    const char* what;
    absl::StatusCode code;
    const char* message;
    std::function<absl::Status(CheckpointWriter&, int)> body;
  };
  const Case cases[] = {
      {"one rank's metadata are no JSON", absl::StatusCode::kInternal, "different saves",
       [&](CheckpointWriter& w, int rank) { return save(w, rank, 1, rank == 1 ? "{" : "{}", 2); }},
      {"no rank's metadata are an object", absl::StatusCode::kInvalidArgument, "JSON object",
       [&](CheckpointWriter& w, int rank) { return save(w, rank, 1, "[]", 2); }},
      {"different steps", absl::StatusCode::kInternal, "different saves",
       [&](CheckpointWriter& w, int rank) { return save(w, rank, 1 + rank, "{}", 2); }},
      {"a negative step", absl::StatusCode::kInvalidArgument, "negative",
       [&](CheckpointWriter& w, int rank) { return save(w, rank, -1, "{}", 2); }},
      {"a third of the state is held by nobody", absl::StatusCode::kInvalidArgument,
       "held by no rank", [&](CheckpointWriter& w, int rank) { return save(w, rank, 1, "{}", 3); }},
      {"both hold everything", absl::StatusCode::kInvalidArgument, "and by another one",
       [&](CheckpointWriter& w, int) { return save(w, 0, 1, "{}", 1); }},
      {"a wrong region on rank 1", absl::StatusCode::kInvalidArgument, "rank 1",
       [&](CheckpointWriter& w, int rank) {
         const ShardedState state(rank, 2, 1);
         std::vector<StateRegion> regions = state.regions();
         if (rank == 1) regions[0].flat_end = 1000000;
         return w.Save(1, regions, "{}").status();
       }},
  };
  for (const Case& c : cases) {
    const auto outcome = SaveOnTwo(options, c.body);
    for (const absl::Status& status : outcome) {
      EXPECT_EQ(status.code(), c.code) << c.what << ": " << status;
      EXPECT_NE(status.message().find(c.message), absl::string_view::npos)
          << c.what << ": " << status;
    }
    const auto found = ListCheckpoints(PosixFileSystem(), options.directory);
    ASSERT_TRUE(found.ok());
    EXPECT_TRUE(found->empty()) << c.what;
  }
  ASSERT_TRUE(SaveSteps(options, 2, {1}).ok());
}

TEST(SaveRestoreTest, AStepIsCommittedOnceAndAFailedOneMayBeSavedAgain) {
  ScratchDirectory scratch;
  const auto outcome =
      SaveOnTwo(Options(scratch / "checkpoints"), [&](CheckpointWriter& writer, int rank) {
        const ShardedState wrong(rank, 3, 5);
        if (writer.Save(5, wrong.regions(), "{}").ok()) return absl::UnknownError("saved a part");
        const ShardedState state(rank, 2, 5);
        auto saved = writer.Save(5, state.regions(), StateMetadata(5));
        if (!saved.ok()) return saved.status();
        const ShardedState again(rank, 2, 6);
        auto second = writer.Save(5, again.regions(), "{}");
        return absl::IsAlreadyExists(second.status()) ? absl::OkStatus()
                                                      : absl::UnknownError("overwrote a step");
      });
  for (const absl::Status& status : outcome) EXPECT_TRUE(status.ok()) << status;
  const auto found = ListCheckpoints(PosixFileSystem(), scratch / "checkpoints");
  ASSERT_TRUE(found.ok() && found->size() == 1);
  ExpectRestores(found->front(), 2);
}

TEST(SaveRestoreTest, ALaterAttemptFencesOffAnEarlierOne) {
  ScratchDirectory scratch;
  const CheckpointOptions options = Options(scratch / "checkpoints");
  const auto outcome = SaveOnTwo(options, [&](CheckpointWriter& old, int rank) {
    const ShardedState first(rank, 2, 1);
    if (auto saved = old.Save(1, first.regions(), "{}"); !saved.ok()) return saved.status();
    // The second attempt; only rank 0 needs to start it.
    if (rank == 0) {
      absl::Status status = RunRanks(1, [&](Transport& transport, Device&) -> absl::Status {
        auto writer = CheckpointWriter::Open(PosixFileSystem(), options, transport);
        if (!writer.ok()) return writer.status();
        if ((*writer)->generation() != 2) return absl::UnknownError("generation");
        const ShardedState state(0, 1, 2);
        return (*writer)->Save(2, state.regions(), "{}").status();
      });
      if (!status.ok()) return status;
    }
    const ShardedState third(rank, 2, 3);
    return old.Save(3, third.regions(), "{}").status();
  });
  for (const absl::Status& status : outcome) {
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_NE(status.message().find("generation 1 is superseded by 2"), absl::string_view::npos)
        << status;
  }
  const auto found = ListCheckpoints(PosixFileSystem(), options.directory);
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(found->size(), 2u);
  EXPECT_EQ(found->front().step, 2);
}

TEST(SaveRestoreTest, APathThatOneNodeDoesNotSee) {
  // Rank 1's file system is another one: its root is a scratch directory of its own.
  class Elsewhere : public CountingFiles {
   public:
    bool Exists(const std::string&) override { return false; }
  };
  ScratchDirectory scratch;
  Elsewhere elsewhere;
  std::array<absl::Status, 2> outcome;
  const absl::Status run = RunRanks(
      2,
      [&](Transport& transport, Device&) -> absl::Status {
        FileSystem& files = transport.rank() == 0 ? PosixFileSystem() : elsewhere;
        outcome[transport.rank()] =
            CheckpointWriter::Open(files, Options(scratch / "checkpoints"), transport).status();
        return absl::OkStatus();
      },
      Patience());
  EXPECT_TRUE(run.ok()) << run;
  for (const absl::Status& status : outcome) {
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    for (const std::string& part : {std::string("rank 1 on "), scratch / "checkpoints"}) {
      EXPECT_NE(status.message().find(part), absl::string_view::npos) << part << ": " << status;
    }
  }
}

TEST(SaveRestoreTest, AnUnwritableDirectoryFailsOnEveryRank) {
  ScratchDirectory scratch;
  std::array<absl::Status, 2> outcome;
  const absl::Status run = RunRanks(2, [&](Transport& transport, Device&) -> absl::Status {
    outcome[transport.rank()] =
        CheckpointWriter::Open(PosixFileSystem(), Options(scratch / "none/checkpoints"), transport)
            .status();
    return absl::OkStatus();
  });
  EXPECT_TRUE(run.ok()) << run;
  for (const absl::Status& status : outcome) {
    EXPECT_TRUE(absl::IsNotFound(status)) << status;
    EXPECT_NE(status.message().find(scratch / "none/checkpoints"), absl::string_view::npos);
  }
}

TEST(SaveRestoreTest, APeerThatIsGoneEndsTheSave) {
  ScratchDirectory scratch;
  absl::Status survivor;
  RunRanks(
      2,
      [&](Transport& transport, Device&) -> absl::Status {
        auto writer =
            CheckpointWriter::Open(PosixFileSystem(), Options(scratch / "checkpoints"), transport);
        if (!writer.ok()) return writer.status();
        if (transport.rank() == 1) return absl::AbortedError("rank 1 dies");
        const ShardedState state(0, 2, 1);
        survivor = (*writer)->Save(1, state.regions(), "{}").status();
        return survivor;
      },
      Patience())
      .IgnoreError();
  EXPECT_TRUE(absl::IsUnavailable(survivor)) << survivor;
  const auto found = ListCheckpoints(PosixFileSystem(), scratch / "checkpoints");
  ASSERT_TRUE(found.ok());
  EXPECT_TRUE(found->empty());
}

// Rewrites the manifest of a step and its commit record to fit.
void RewriteManifest(const std::string& directory, const std::string& from, const std::string& to) {
  const std::string text =
      Replaced(*PosixFileSystem().ReadAll(directory + "/manifest.json"), from, to);
  CommitRecord record = *ParseCommit(*PosixFileSystem().ReadAll(directory + "/COMMIT"), "COMMIT");
  record.root_hash = ExtendCrc64(0, text.data(), static_cast<int64_t>(text.size()));
  WriteFile(directory + "/manifest.json", text);
  WriteFile(directory + "/COMMIT", SerializeCommit(record));
}

TEST(SaveRestoreTest, ANewerFormatIsRefusedByNameAndUnknownKeysAreIgnored) {
  ScratchDirectory scratch;
  ASSERT_TRUE(SaveSteps(Options(scratch / "checkpoints"), 2, {1, 2}).ok());
  const std::string newest = scratch / "checkpoints/step-00000002.g0001";
  RewriteManifest(newest, "{\"format\"", "{\"of tomorrow\":{\"x\":[1]},\"format\"");
  auto found = ListCheckpoints(PosixFileSystem(), scratch / "checkpoints");
  ASSERT_TRUE(found.ok() && found->size() == 2);
  ExpectRestores(found->front(), 3);

  RewriteManifest(newest, "\"version\":1", "\"version\":2");
  const auto info = ReadCheckpointInfo(PosixFileSystem(), newest);
  EXPECT_TRUE(absl::IsFailedPrecondition(info.status())) << info.status();
  EXPECT_NE(info.status().message().find("longspan-checkpoint version 2"), absl::string_view::npos);
  std::vector<std::string> skipped;
  found = ListCheckpoints(PosixFileSystem(), scratch / "checkpoints", &skipped);
  ASSERT_TRUE(found.ok() && found->size() == 1);
  EXPECT_EQ(found->front().step, 1);
  ASSERT_EQ(skipped.size(), 1u);
  EXPECT_NE(skipped[0].find("version 2"), std::string::npos);
}

TEST(SaveRestoreTest, FilesOfAnotherStepDoNotPass) {
  ScratchDirectory scratch;
  ASSERT_TRUE(SaveSteps(Options(scratch / "checkpoints"), 2, {1, 2}).ok());
  const std::string first = scratch / "checkpoints/step-00000001.g0001";
  const std::string second = scratch / "checkpoints/step-00000002.g0001";
  const auto info = ReadCheckpointInfo(PosixFileSystem(), second);
  ASSERT_TRUE(info.ok());
  std::filesystem::copy_file(first + "/rank-00001.h5", second + "/rank-00001.h5",
                             std::filesystem::copy_options::overwrite_existing);
  for (const absl::Status& status :
       {VerifyCheckpoint(PosixFileSystem(), *info),
        RestoreRegions(PosixFileSystem(), *info, ShardedState(0, 1, 2).regions())}) {
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_NE(status.message().find(second + "/rank-00001.h5"), absl::string_view::npos);
  }
  // A manifest of another save beside a valid commit record.
  std::filesystem::copy_file(first + "/manifest.json", second + "/manifest.json",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(absl::IsDataLoss(ReadCheckpointInfo(PosixFileSystem(), second).status()));
  // A whole directory under another name.
  std::filesystem::rename(first, scratch / "checkpoints/step-00000009.g0001");
  std::vector<std::string> skipped;
  const auto found = ListCheckpoints(PosixFileSystem(), scratch / "checkpoints", &skipped);
  ASSERT_TRUE(found.ok());
  EXPECT_TRUE(found->empty());
  EXPECT_EQ(skipped.size(), 2u);
}

TEST(SaveRestoreTest, AMissingOrShortFileIsFound) {
  ScratchDirectory scratch;
  ASSERT_TRUE(SaveSteps(Options(scratch / "checkpoints"), 2, {1}).ok());
  const std::string step = scratch / "checkpoints/step-00000001.g0001";
  const auto info = ReadCheckpointInfo(PosixFileSystem(), step);
  ASSERT_TRUE(info.ok());
  const auto size = std::filesystem::file_size(step + "/rank-00000.h5");
  std::filesystem::resize_file(step + "/rank-00000.h5", size - 1);
  absl::Status status = RestoreRegions(PosixFileSystem(), *info, ShardedState(0, 1, 1).regions());
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  status = VerifyCheckpoint(PosixFileSystem(), *info);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_NE(status.message().find("rank-00000.h5"), absl::string_view::npos);
  std::filesystem::remove(step + "/rank-00000.h5");
  status = ReadCheckpointInfo(PosixFileSystem(), step).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_NE(status.message().find("rank-00000.h5"), absl::string_view::npos);
}

}  // namespace
}  // namespace longspan
