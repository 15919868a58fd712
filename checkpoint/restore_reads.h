// What a rank reads of the files of a checkpoint, in which pieces, and how they are verified.
#ifndef LONGSPAN_CHECKPOINT_RESTORE_READS_H_
#define LONGSPAN_CHECKPOINT_RESTORE_READS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/manifest.h"

namespace longspan {

// One read: neighbouring chunks of a file, each of which a region needs bytes of.
struct RestoreRead {
  int file = 0;                // index into Manifest::files
  int64_t begin = 0, end = 0;  // bytes of the file, at borders of chunks or its end
  struct Copy {
    int64_t offset, bytes;  // in the file
    char* to;
  };
  std::vector<Copy> copies;
};

// Bytes of the longest read; more only where a chunk is longer.
inline constexpr int64_t kRestoreReadBytes = File::kLongRead;

// The reads that fill `regions`, by file and offset; every chunk is in one at most. Errors as of
// RestoreRegions; `source` names the checkpoint in them.
absl::StatusOr<std::vector<RestoreRead>> PlanRestore(const Manifest& manifest,
                                                     const std::string& source,
                                                     const std::vector<StateRegion>& regions);

// DataLoss, naming `path` and the bytes, unless the chunks of `read`, at `bytes`, have the
// checksums of the manifest.
absl::Status CheckChunks(const Manifest& manifest, const RestoreRead& read, const std::string& path,
                         const char* bytes);
// From the bytes of `read` to the regions' memory.
void CopyToRegions(const RestoreRead& read, const char* bytes);

// Memory for reads, aligned to what O_DIRECT asks for.
class ReadBuffer {
 public:
  explicit ReadBuffer(int64_t bytes);
  char* data() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(char* memory) const;
  };
  std::unique_ptr<char, Free> memory_;
};

// Carries out those of `reads` that `path_of` gives a path for ("" : not this one), several at a
// time: opened, its size compared, read, verified, copied, in parts of the file's ReadUnit.
// `failed`, if not null, gets the index of every read that went wrong, in ascending order, and all
// others are done; else the first failure ends it. The status is that of the lowest index.
absl::Status ReadAndVerify(FileSystem& files, const Manifest& manifest,
                           const std::vector<RestoreRead>& reads,
                           const std::function<std::string(const RestoreRead&)>& path_of,
                           std::vector<size_t>* failed = nullptr);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_RESTORE_READS_H_
