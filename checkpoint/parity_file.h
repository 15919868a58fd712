// The file of a member's parity: parity-GGGGG-MM in a step directory. FORMAT.md says what is where.
#ifndef LONGSPAN_CHECKPOINT_PARITY_FILE_H_
#define LONGSPAN_CHECKPOINT_PARITY_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/erasure_groups.h"
#include "checkpoint/file_system.h"
#include "checkpoint/step_directory.h"

namespace longspan {

// "parity-00002-01".
std::string ParityFileName(int group, int member);
bool IsParityFileName(const std::string& name);

// What a parity file says of itself.
struct ParityDescription {
  std::string run_id;
  StepName step;
  int group = 0, member = 0;
  std::vector<std::string> files;  // names, by member; empty where a member has none
  ErasureLayout layout;
  std::vector<uint32_t> symbol_crc32c;  // of the parity symbols, by number

  // The same group of the same step.
  bool SameGroup(const ParityDescription& other) const;
};
std::string SerializeParity(const ParityDescription& description);
// DataLoss, naming `source`, for anything else; FailedPrecondition for a newer version.
absl::StatusOr<ParityDescription> ParseParity(const std::string& text, const std::string& source);

// For one thread. Symbols in order, each once; then Finish.
class ParityFileWriter {
 public:
  // Creates the file and reserves its space. `description` without checksums.
  static absl::StatusOr<std::unique_ptr<ParityFileWriter>> Create(FileSystem& files,
                                                                  const std::string& directory,
                                                                  ParityDescription description);
  // description.layout.symbol_bytes.
  absl::Status Add(const char* symbol);
  // Adds the description and makes the file, and its name, durable.
  absl::Status Finish();

 private:
  ParityFileWriter(FileSystem& files, std::string directory, ParityDescription description,
                   std::unique_ptr<File> file);

  FileSystem& files_;
  const std::string directory_;
  ParityDescription description_;
  std::unique_ptr<File> file_;
};

// For one thread.
class ParityFileReader {
 public:
  // DataLoss if the description is damaged or the file is not as long as it says.
  static absl::StatusOr<std::unique_ptr<ParityFileReader>> Open(FileSystem& files,
                                                                const std::string& path);
  const ParityDescription& description() const { return description_; }
  // A whole symbol, compared with its checksum: DataLoss.
  absl::Status Read(int64_t number, char* symbol);

 private:
  ParityFileReader(std::string path, std::unique_ptr<File> file, ParityDescription description);

  const std::string path_;
  const std::unique_ptr<File> file_;
  const ParityDescription description_;
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_PARITY_FILE_H_
