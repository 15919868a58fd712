// The HDF5 file of one rank: where each region lies, and how its bytes get there without HDF5.
//
// HDF5 makes the structure once, in a sparse file in memory; from it come the metadata block (the
// bytes before the raw data) and each region's offset. Raw data follow that block without gaps, so
// a save is one sequential stream of bytes that goes through FileSystem alone. FORMAT.md says what
// the file looks like.
#ifndef LONGSPAN_CHECKPOINT_RANK_FILE_H_
#define LONGSPAN_CHECKPOINT_RANK_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"

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

// InvalidArgument where a region is wrong (names the tensor). Thread-safe.
absl::StatusOr<RankFileLayout> BuildRankFileLayout(const RankFileIdentity& identity,
                                                   const std::vector<StateRegion>& regions);

// What was written, for the manifest.
struct RankFileSums {
  std::vector<uint32_t> chunk_crc32c;  // from byte 0 on, kChunkBytes each
  std::vector<uint64_t> region_crc64;  // of region i's bytes
};

// Streams head and regions into `file` in large aligned writes and syncs it. `regions` are those of
// the layout, with memory that nobody changes meanwhile.
absl::StatusOr<RankFileSums> WriteRankFile(const RankFileLayout& layout,
                                           const std::vector<StateRegion>& regions, File& file);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_RANK_FILE_H_
