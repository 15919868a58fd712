// The manifest: everything needed to read one checkpoint, and the commit record that makes it
// count. FORMAT.md.
#ifndef LONGSPAN_CHECKPOINT_MANIFEST_H_
#define LONGSPAN_CHECKPOINT_MANIFEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// The only version so far. Files say which one they are; newer ones are refused.
inline constexpr int kCheckpointVersion = 1;

struct ManifestTensor {
  std::string group, tensor;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t crc64 = 0;  // of the whole tensor's bytes
};

// Elements [flat_begin, flat_end) of a tensor, from byte `offset` of a file on.
struct ManifestRegion {
  int tensor = 0;  // index into Manifest::tensors
  int64_t flat_begin = 0, flat_end = 0;
  int64_t offset = 0;
};

struct ManifestFile {
  std::string name;  // in the step directory
  int64_t bytes = 0;
  std::vector<uint32_t> chunk_crc32c;  // Manifest::chunk_bytes each, from byte 0 on
  std::vector<ManifestRegion> regions;
};

struct Manifest {
  std::string run_id;
  int64_t generation = 0;
  int64_t step = 0;
  int64_t chunk_bytes = 0;
  uint64_t state_hash = 0;
  std::string run;  // the caller's JSON object
  std::vector<ManifestTensor> tensors;
  std::vector<ManifestFile> files;  // one a rank
};

struct CommitRecord {
  std::string run_id;
  int64_t generation = 0;
  int64_t step = 0;
  uint64_t root_hash = 0;  // CRC-64 of the bytes of manifest.json
  std::string time;        // UTC, ISO 8601; for people
};

// One rank's contribution, sent to rank 0. region_crc64 and tensors are parallel to file.regions:
// tensor indices count within `tensors`.
struct RankContribution {
  std::vector<ManifestTensor> tensors;  // crc64: of this rank's part alone
  ManifestFile file;
};
absl::StatusOr<std::string> SerializeContribution(const RankContribution& contribution);
absl::StatusOr<RankContribution> ParseContribution(const std::string& text);

// Joins the ranks' contributions: fills tensors (sorted by group and name, crc64 of the whole),
// files and state_hash. InvalidArgument where an element of a tensor is held by no rank or by two,
// or ranks disagree on a tensor.
absl::Status JoinContributions(const std::vector<RankContribution>& contributions,
                               Manifest& manifest);

// A CRC-64 over names, dtypes, shapes and contents of the tensors, in order of group and name.
uint64_t StateHash(const std::vector<ManifestTensor>& tensors);

// InvalidArgument if `run` is no JSON object.
absl::StatusOr<std::string> SerializeManifest(const Manifest& manifest);
// `source` names the file in messages. DataLoss if the content is not a manifest or contradicts
// itself, FailedPrecondition if it is of a newer version.
absl::StatusOr<Manifest> ParseManifest(const std::string& text, const std::string& source);

std::string SerializeCommit(const CommitRecord& record);
// DataLoss, FailedPrecondition as above.
absl::StatusOr<CommitRecord> ParseCommit(const std::string& text, const std::string& source);

// InvalidArgument unless `text` is a JSON object.
absl::Status CheckJsonObject(const std::string& text, const std::string& what);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_MANIFEST_H_
