// DecodedReads: bytes of files that are nowhere left, computed from parity and the files of the
// other members of their groups, wherever these are.
#ifndef LONGSPAN_CHECKPOINT_DECODED_READS_H_
#define LONGSPAN_CHECKPOINT_DECODED_READS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "checkpoint/file_system.h"
#include "checkpoint/manifest.h"
#include "checkpoint/parity_file.h"
#include "checkpoint/places.h"
#include "checkpoint/restore_reads.h"
#include "parallel/transport/transport.h"

namespace longspan {

class DecodedReads {
 public:
  // All outlive it. `purpose` begins the tags of its messages; `patience`: for one of them.
  DecodedReads(FileSystem& files, const Manifest& manifest, const Places& places,
               Transport& transport, std::string purpose, absl::Duration patience);

  // OK if bytes [begin, end) of a file can be computed; else what is missing. The same on all
  // ranks.
  absl::Status Check(int file, int64_t begin, int64_t end) const;
  // Collective: computes those of every rank's reads for which `mine` are given here (Check has
  // passed all of them), verifies and copies them. `bad` gets what turned out to be bad, `again`
  // the reads that could not be computed for that, `failure` the first reason.
  absl::Status Run(const std::vector<RestoreRead>& mine, std::set<Places::Bad>& bad,
                   std::vector<RestoreRead>& again, absl::Status& failure);
  // Files that any rank had to have computed, each with the tier whose parity it took. The same on
  // all ranks.
  const std::map<int, std::string>& computed() const { return computed_; }

 private:
  // A symbol, or a part of one, that goes into a sum. All zeros, and nowhere, for item -1.
  struct Source {
    int symbol = 0;  // in the stripe: data, then parity
    int item = -1, place = 0;
    int64_t begin = 0, end = 0;  // in a file; within the symbol for parity
    int64_t number = -1;         // of the parity symbol; -1 for a file
  };
  // Bytes of a file that come from one stripe.
  struct Part {
    int group = 0;
    int64_t begin = 0, end = 0;
    std::vector<Source> sources;
    std::vector<uint8_t> factors;
  };
  struct Wanted {
    int file = 0;
    int64_t begin = 0, end = 0;
  };
  absl::StatusOr<std::vector<Part>> Plan(int rank, const Wanted& wanted) const;
  // The sources of `part`, whose range is set, from one group; what is missing if they are too few.
  absl::Status PlanPart(int rank, int group, int member, Part& part) const;

  absl::StatusOr<std::vector<std::vector<Wanted>>> Exchange(const std::vector<RestoreRead>& mine);
  int From(int rank, const Source& source, int64_t round) const;
  absl::Status Serve(int to, const std::vector<Part>& parts, int64_t round);
  absl::Status Compute(const RestoreRead& read, const std::vector<Part>& parts, int64_t round,
                       std::set<Places::Bad>& bad, std::vector<RestoreRead>& again,
                       absl::Status& failure);
  absl::StatusOr<std::string> Read(const Source& source);
  std::string Tag(int64_t round, size_t part, size_t source) const;

  FileSystem& files_;
  const Manifest& manifest_;
  const Places& places_;
  Transport& transport_;
  const std::string purpose_;
  const absl::Duration patience_;
  std::map<int, std::vector<std::pair<int, int>>> groups_of_;  // by file: group, member
  std::map<std::string, std::unique_ptr<ParityFileReader>> open_;
  int64_t passes_ = 0;
  std::map<int, std::string> computed_;
};

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_DECODED_READS_H_
