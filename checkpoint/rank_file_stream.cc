#include <algorithm>
#include <cstring>
#include <utility>

#include "checkpoint/checksum.h"
#include "checkpoint/rank_file.h"
#include "kernels/device/check.h"
#include "kernels/device/content_sum.h"

namespace longspan {
namespace {

// What a core's cache keeps, so that bytes come out of memory once for the copy and all sums.
constexpr int64_t kCachedBytes = int64_t{128} << 10;
static_assert(kChunkBytes % kCachedBytes == 0);

void HostCopy(void* to, const void* from, int64_t bytes) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace

int64_t PieceCount(const RankFileLayout& layout) {
  return (layout.bytes + kPieceBytes - 1) / kPieceBytes;
}

int64_t PieceBytes(const RankFileLayout& layout, int64_t piece) {
  return std::min(kPieceBytes, layout.bytes - piece * kPieceBytes);
}

int64_t LastPiece(const RankFileLayout& layout, const std::vector<StateRegion>& regions,
                  int64_t i) {
  const int64_t bytes = RegionBytes(regions[i]);
  return bytes == 0 ? 0 : (layout.offsets[i] + bytes - 1) / kPieceBytes;
}

RankFileStream::RankFileStream(const RankFileLayout& layout,
                               const std::vector<StateRegion>& regions)
    : layout_(layout), regions_(regions) {
  parts_.push_back({layout.head.data(), 0, layout.data_begin, -1});
  for (size_t i = 0; i < regions.size(); ++i) {
    if (layout.offsets[i] < 0) continue;
    parts_.push_back({static_cast<const char*>(regions[i].data), layout.offsets[i],
                      layout.offsets[i] + RegionBytes(regions[i]), static_cast<int>(i)});
  }
}

RankFileSums RankFileStream::EmptySums(bool content_sums) const {
  RankFileSums sums;
  sums.region_crc64.assign(regions_.size(), 0);
  if (content_sums) sums.content_sums.assign(ContentSumCount(regions_), 0);
  return sums;
}

template <typename Visit>
void RankFileStream::ForParts(int64_t begin, int64_t end, size_t& first, const Visit& visit) const {
  while (first < parts_.size() && parts_[first].end <= begin) ++first;
  for (size_t p = first; p < parts_.size() && parts_[p].begin < end; ++p) {
    const int64_t from = std::max(begin, parts_[p].begin);
    const int64_t to = std::min(end, parts_[p].end);
    visit(parts_[p], from, to, from - begin);
  }
}

void RankFileStream::CopyBlock(int64_t begin, int64_t count, char* to, const CopyBytes& copy) {
  ForParts(begin, begin + count, first_copied_,
           [&](const Part& part, int64_t from, int64_t end, int64_t at) {
             const char* source = part.data + (from - part.begin);
             if (part.region < 0) {
               std::memcpy(to + at, source, static_cast<size_t>(end - from));
             } else {
               copy(to + at, source, end - from);
             }
           });
}

void RankFileStream::SumBlock(int64_t begin, int64_t count, const char* bytes, RankFileSums& sums) {
  if (begin % kChunkBytes == 0) sums.chunk_crc32c.push_back(0);
  sums.chunk_crc32c.back() = ExtendCrc32c(sums.chunk_crc32c.back(), bytes, count);
  ForParts(begin, begin + count, first_summed_,
           [&](const Part& part, int64_t from, int64_t end, int64_t at) {
             if (part.region < 0) return;
             uint64_t& crc = sums.region_crc64[part.region];
             crc = ExtendCrc64(crc, bytes + at, end - from);
             const StateRegion& region = regions_[part.region];
             if (sums.content_sums.empty() || region.content_sum < 0) return;
             sums.content_sums[region.content_sum] += ContentSum(
                 bytes + at, (end - from) / 4, region.content_position + (from - part.begin) / 4);
           });
}

void RankFileStream::CopyPiece(int64_t piece, char* to, const CopyBytes& copy) {
  CopyBlock(piece * kPieceBytes, PieceBytes(layout_, piece), to, copy);
}

void RankFileStream::AddSums(int64_t piece, const char* bytes, RankFileSums& sums) {
  const int64_t length = PieceBytes(layout_, piece);
  for (int64_t at = 0; at < length; at += kCachedBytes) {
    SumBlock(piece * kPieceBytes + at, std::min(kCachedBytes, length - at), bytes + at, sums);
  }
}

void RankFileStream::CopyAndSum(int64_t piece, char* to, RankFileSums& sums) {
  const int64_t begin = piece * kPieceBytes;
  const int64_t length = PieceBytes(layout_, piece);
  for (int64_t at = 0; at < length; at += kCachedBytes) {
    const int64_t count = std::min(kCachedBytes, length - at);
    CopyBlock(begin + at, count, to + at, HostCopy);
    SumBlock(begin + at, count, to + at, sums);
  }
}

RankFileWriter::RankFileWriter(const RankFileLayout& layout, File& file, HostPool& pool)
    : layout_(layout), file_(file), pool_(pool) {
  LONGSPAN_CHECK(pool.chunk_bytes() == kPieceBytes, "a chunk holds a piece");
}

RankFileWriter::~RankFileWriter() {
  LONGSPAN_CHECK(under_way_ == 0, "a rank file is finished before it is left");
}

void RankFileWriter::Write(int64_t piece, char* chunk) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_.ok()) {  // the file is lost: the rest of it need not be written
      pool_.Give(chunk);
      return;
    }
    ++under_way_;
  }
  file_.StartWrite(piece * kPieceBytes, chunk, PieceBytes(layout_, piece),
                   [this, chunk](const absl::Status& status) {
                     pool_.Give(chunk);
                     const std::lock_guard lock(mutex_);
                     failure_.Update(status);
                     // Under the lock: whoever is woken may destroy this.
                     if (--under_way_ == 0) ended_.notify_all();
                   });
}

absl::Status RankFileWriter::Finish() {
  {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [&] { return under_way_ == 0; });
    if (!failure_.ok()) return failure_;
  }
  return file_.Sync();
}

absl::StatusOr<RankFileSums> WriteRankFile(const RankFileLayout& layout,
                                           const std::vector<StateRegion>& regions, File& file,
                                           HostPool& pool) {
  RankFileStream stream(layout, regions);
  RankFileSums sums = stream.EmptySums(/*content_sums=*/false);
  RankFileWriter writer(layout, file, pool);
  for (int64_t piece = 0; piece < PieceCount(layout); ++piece) {
    char* chunk = pool.Take();
    stream.CopyAndSum(piece, chunk, sums);
    writer.Write(piece, chunk);
  }
  if (absl::Status status = writer.Finish(); !status.ok()) return status;
  return sums;
}

}  // namespace longspan
