// The HDF5 file of one rank: where each region lies, and how its bytes get there without HDF5.
//
// HDF5 makes the structure once, in a sparse file in memory; from it come the metadata block (the
// bytes before the raw data) and each region's offset. Raw data follow that block without gaps, so
// a save is one sequential stream of bytes that goes through FileSystem alone. FORMAT.md says what
// the file looks like.
#ifndef LONGSPAN_CHECKPOINT_RANK_FILE_H_
#define LONGSPAN_CHECKPOINT_RANK_FILE_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/host_pool.h"

namespace longspan {

// Bytes that one CRC-32C of the manifest covers; the last chunk of a file may be shorter.
inline constexpr int64_t kChunkBytes = int64_t{4} << 20;

// Elements, and bytes, of the range a region holds.
int64_t RegionElements(const StateRegion& region);
int64_t RegionBytes(const StateRegion& region);
// Elements of a whole tensor; 1 for an empty shape.
int64_t ShapeElements(const std::vector<int64_t>& shape);

// What the root attributes of a rank file say.
struct RankFileIdentity {
  std::string run_id;
  int64_t generation = 0;
  int rank = 0;
  int ranks = 1;
};

// The structure of one rank's file for one list of regions. Immutable; no HDF5 handle stays open.
struct RankFileLayout {
  std::string head;  // bytes [0, data_begin): all of HDF5's metadata
  int64_t data_begin = 0;
  int64_t bytes = 0;             // of the whole file
  std::vector<int64_t> offsets;  // of region i; empty regions have no data set and offset -1
};

// One more than the highest content_sum of any region.
int ContentSumCount(const std::vector<StateRegion>& regions);

// InvalidArgument where a region is wrong (names the tensor). Thread-safe.
absl::StatusOr<RankFileLayout> BuildRankFileLayout(const RankFileIdentity& identity,
                                                   const std::vector<StateRegion>& regions);

// What was written, for the manifest and to be compared.
struct RankFileSums {
  std::vector<uint32_t> chunk_crc32c;  // from byte 0 on, kChunkBytes each
  std::vector<uint64_t> region_crc64;  // of region i's bytes
  std::vector<uint64_t> content_sums;  // by StateRegion::content_sum; none where not asked for
};

// The file goes out in pieces of kPieceBytes, the last one shorter: what is copied, checksummed and
// written at a time. Pieces cross the borders of regions.
inline constexpr int64_t kPieceBytes = 2 * kChunkBytes;
int64_t PieceCount(const RankFileLayout& layout);
// Bytes of one piece.
int64_t PieceBytes(const RankFileLayout& layout, int64_t piece);
// The last piece that holds a byte of region i; 0 for one without bytes.
int64_t LastPiece(const RankFileLayout& layout, const std::vector<StateRegion>& regions, int64_t i);

// Copies host or device memory to host memory.
using CopyBytes = std::function<void(void* to, const void* from, int64_t bytes)>;

// The pieces of one file, filled and written: `layout` and `regions` belong together and outlive
// it. CopyPiece and the other functions may run on two threads; each on one at a time.
class RankFileStream {
 public:
  RankFileStream(const RankFileLayout& layout, const std::vector<StateRegion>& regions);

  // Nothing added up yet.
  RankFileSums EmptySums(bool content_sums) const;

  // Fills `to` (kPieceBytes) with a piece, from the head and the regions' memory; pieces in order.
  void CopyPiece(int64_t piece, char* to, const CopyBytes& copy);
  // Adds the checksums of a piece to `sums`; pieces in order.
  void AddSums(int64_t piece, const char* bytes, RankFileSums& sums);
  // Both, for regions in host memory: what was copied is summed while a core's cache still has it.
  void CopyAndSum(int64_t piece, char* to, RankFileSums& sums);

 private:
  struct Part {
    const char* data;
    int64_t begin, end;  // in the file
    int region;          // -1: the head
  };
  template <typename Visit>
  void ForParts(int64_t begin, int64_t end, size_t& first, const Visit& visit) const;
  // Both of the bytes [begin, begin + count) of the file, which are in one chunk.
  void CopyBlock(int64_t begin, int64_t count, char* to, const CopyBytes& copy);
  void SumBlock(int64_t begin, int64_t count, const char* bytes, RankFileSums& sums);

  const RankFileLayout& layout_;
  const std::vector<StateRegion>& regions_;
  std::vector<Part> parts_;                     // in file order
  size_t first_copied_ = 0, first_summed_ = 0;  // parts that are not yet through
};

// Writes pieces, several at a time.
class RankFileWriter {
 public:
  // All of these outlive the writer; Finish comes before its end.
  RankFileWriter(const RankFileLayout& layout, File& file, HostPool& pool);
  ~RankFileWriter();
  // Takes over `chunk`, of the pool, that holds a piece; gives it back when it is written. Pieces
  // in order, on one thread.
  void Write(int64_t piece, char* chunk);
  // Waits for the writes and syncs the file. The first failure, if any.
  absl::Status Finish();

 private:
  const RankFileLayout& layout_;
  File& file_;
  HostPool& pool_;
  std::mutex mutex_;
  std::condition_variable ended_;
  int64_t under_way_ = 0;
  absl::Status failure_;
};

// Streams head and regions into `file` and syncs it. `regions` are those of the layout, in host
// memory that nobody changes meanwhile. `pool`: chunks of kPieceBytes, at least one of
// which is free or will be.
absl::StatusOr<RankFileSums> WriteRankFile(const RankFileLayout& layout,
                                           const std::vector<StateRegion>& regions, File& file,
                                           HostPool& pool);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_RANK_FILE_H_
