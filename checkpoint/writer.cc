// Save, start to end, on the calling thread. The steps are those of commit.h.
#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/commit.h"
#include "checkpoint/manifest.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/spare_files.h"
#include "checkpoint/step_directory.h"
#include "checkpoint/vote.h"

namespace longspan {
namespace {

// Pieces of the rank file that are under way: one is filled while the others are written.
constexpr int64_t kPieces = 4;

// What a layout was made for: everything of the regions but the memory.
bool SameStructure(const std::vector<StateRegion>& a, const std::vector<StateRegion>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    // A region without memory was not checked to be empty.
    if (a[i].group != b[i].group || a[i].tensor != b[i].tensor || a[i].dtype != b[i].dtype ||
        a[i].global_shape != b[i].global_shape || a[i].flat_begin != b[i].flat_begin ||
        a[i].flat_end != b[i].flat_end || (a[i].data == nullptr) != (b[i].data == nullptr)) {
      return false;
    }
  }
  return true;
}

class SynchronousWriter : public CheckpointWriter {
 public:
  SynchronousWriter(FileSystem& files, CheckpointOptions options, Transport& transport,
                    int64_t generation)
      : files_(files),
        options_(std::move(options)),
        transport_(transport),
        generation_(generation) {}
  ~SynchronousWriter() override {
    if (transport_.rank() == 0) RemoveSpare(files_, options_.directory, generation_).IgnoreError();
  }

  int64_t generation() const override { return generation_; }

  absl::StatusOr<SaveReport> Save(int64_t step, const std::vector<StateRegion>& regions,
                                  const std::string& metadata) override {
    const auto start = std::chrono::steady_clock::now();
    ++attempt_;
    const StepName name{step, generation_};
    const std::string directory = JoinPath(options_.directory, StepDirectoryName(name));
    const std::string tag = SaveTag(name, attempt_, metadata);
    const std::string context = "checkpoint of step " + std::to_string(step) + " not saved: ";

    absl::Status mine = Prepare(step, regions, metadata);
    made_directory_ = false;
    if (mine.ok() && transport_.rank() == 0) {
      mine = MakeStepDirectory(files_, options_, name);
      made_directory_ = mine.ok();
    }
    absl::StatusOr<std::vector<std::string>> votes = Vote(transport_, tag + " prepare", mine);
    if (!votes.ok()) return Fail(context, votes.status(), name);

    absl::StatusOr<std::string> contribution = WriteOwnFile(directory, regions);
    votes = Vote(transport_, tag + " write", contribution.status(),
                 contribution.ok() ? *contribution : "");
    if (!votes.ok()) return Fail(context, votes.status(), name);

    std::vector<std::string> warnings;
    if (transport_.rank() == 0) {
      mine = CommitStep(files_, options_, name, *votes, metadata, nullptr).status();
      if (mine.ok()) warnings = FinishCommitted(files_, options_, name, nullptr);
    }
    std::string lines;
    for (const std::string& warning : warnings) lines += warning + "\n";
    votes = Vote(transport_, tag + " commit", mine, lines);
    if (!votes.ok()) return Fail(context, votes.status(), name);

    SaveReport report;
    report.directory = directory;
    report.bytes = layout_->bytes;
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (size_t begin = 0; begin < votes->front().size();) {
      const size_t end = votes->front().find('\n', begin);
      report.warnings.push_back(votes->front().substr(begin, end - begin));
      begin = end + 1;
    }
    return report;
  }

 private:
  // This rank's part of a save that touches no file: arguments, and the layout where it is not the
  // last save's.
  absl::Status Prepare(int64_t step, const std::vector<StateRegion>& regions,
                       const std::string& metadata) {
    if (step < 0) {
      return absl::InvalidArgumentError("step " + std::to_string(step) + " is negative");
    }
    if (absl::Status status = CheckJsonObject(metadata, "the checkpoint's metadata");
        !status.ok()) {
      return status;
    }
    if (layout_ && SameStructure(regions, layout_regions_)) return absl::OkStatus();
    absl::StatusOr<RankFileLayout> layout = BuildRankFileLayout(
        {options_.run_id, generation_, transport_.rank(), transport_.size()}, regions);
    if (!layout.ok()) return layout.status();
    pool_.reset();
    absl::StatusOr<std::unique_ptr<HostPool>> pool =
        HostPool::Create(memory_, std::min(kPieces, PieceCount(*layout)), kPieceBytes);
    if (!pool.ok()) return pool.status();
    pool_ = *std::move(pool);
    layout_ = *std::move(layout);
    layout_regions_ = regions;
    return absl::OkStatus();
  }

  // Every rank. Returns its serialized part of the manifest.
  absl::StatusOr<std::string> WriteOwnFile(const std::string& directory,
                                           const std::vector<StateRegion>& regions) {
    absl::StatusOr<std::unique_ptr<File>> file =
        CreateRankFile(files_, directory, transport_.rank(), layout_->bytes);
    if (!file.ok()) return file.status();
    absl::StatusOr<RankFileSums> sums = WriteRankFile(*layout_, regions, **file, *pool_);
    file->reset();
    if (!sums.ok()) return sums.status();
    return FinishRankFile(files_, directory, transport_.rank(), *layout_, regions,
                          *std::move(sums));
  }

  // The partial directory is removed where that can be done: a full disk needs the space. Not if a
  // peer is gone, because the others may still be writing.
  absl::Status Fail(const std::string& context, const absl::Status& why, const StepName& name) {
    if (transport_.rank() == 0 && made_directory_ && !absl::IsUnavailable(why)) {
      RemoveFailedStep(files_, options_, name);
      made_directory_ = false;
    }
    return absl::Status(why.code(), absl::StrCat(context, why.message()));
  }

  FileSystem& files_;
  const CheckpointOptions options_;
  Transport& transport_;
  const int64_t generation_;
  int64_t attempt_ = 0;
  bool made_directory_ = false;           // rank 0: by the running save
  std::optional<RankFileLayout> layout_;  // of the last save, for layout_regions_
  std::vector<StateRegion> layout_regions_;
  MemoryTable memory_;
  std::unique_ptr<HostPool> pool_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Open(FileSystem& files,
                                                                         CheckpointOptions options,
                                                                         Transport& transport) {
  absl::StatusOr<int64_t> generation = OpenGeneration(files, options, transport);
  if (!generation.ok()) return generation.status();
  return std::make_unique<SynchronousWriter>(files, std::move(options), transport, *generation);
}

}  // namespace longspan
