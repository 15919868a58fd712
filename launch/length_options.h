// The options that say which sequences to plan for.
#ifndef LONGSPAN_LAUNCH_LENGTH_OPTIONS_H_
#define LONGSPAN_LAUNCH_LENGTH_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "launch/command_line.h"

namespace longspan {

// --lengths FILE | --data FILE [--tokens N] | --mix NAME --tokens N; [--context L] [--seed S]
struct LengthOptions {
  std::string file;  // "-": standard input
  std::string data;
  std::string mix;
  uint64_t tokens = 0;   // 0: not given
  uint64_t context = 0;  // 0: not given
  uint64_t seed = 1;
};

// `options` must outlive the parsing.
void AddLengthOptions(const Command& command, LengthOptions& options);

// Lengths in tokens, each at least one, in order of arrival. Errors name the file and the line.
absl::StatusOr<std::vector<int64_t>> ChooseLengths(const LengthOptions& options);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_LENGTH_OPTIONS_H_
