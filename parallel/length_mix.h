// Length mixes: batches of sequence lengths as real corpora have them, for tests, plans and
// simulations of clusters that nobody has.
#ifndef LONGSPAN_PARALLEL_LENGTH_MIX_H_
#define LONGSPAN_PARALLEL_LENGTH_MIX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longspan {

struct LengthMixRequest {
  std::string mix;
  int64_t tokens = 0;  // drawn until there are at least as many, the last sequence cut to fit; >= 1
  int64_t context = 0;  // longer sequences are cut into pieces of this; 0: as drawn
  uint64_t seed = 1;
};

// Lengths in order of arrival. The same for the same request.
//  - "byted", "github": shares of tokens by length, after ByteScale (arXiv 2502.21231, Figure 4);
//    2M of them is the longest;
//  - "wikipedia", "chatqa2": shares of samples by length; up to 78K and 99K;
//  - "code": source files of 54 public repositories, 15,280 files, bytes / 3.3; up to 361K;
//  - "equal": all of 8192 tokens; "giant": one of 2M among those of "equal".
// InvalidArgument lists the mixes; or tokens or context out of range.
absl::StatusOr<std::vector<int64_t>> DrawLengths(const LengthMixRequest& request);

std::vector<std::string> LengthMixes();

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_LENGTH_MIX_H_
