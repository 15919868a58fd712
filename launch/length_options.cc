#include "launch/length_options.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "parallel/integer_cost.h"
#include "parallel/length_mix.h"
#include "runtime/data/dataset.h"

namespace longspan {
namespace {

absl::StatusOr<std::vector<int64_t>> FromText(std::istream& text, const std::string& name,
                                              int64_t context) {
  std::vector<int64_t> lengths;
  std::string line;
  for (int64_t number = 1; std::getline(text, line); ++number) {
    const std::string word(absl::StripAsciiWhitespace(line));
    if (word.empty() || word.front() == '#') continue;
    int64_t length = 0;
    if (!absl::SimpleAtoi(word, &length) || length < 1 || length > kMaxBatchTokens) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ":", number, ": \"", word.substr(0, 40),
                       "\" is not a length: each line holds one whole number of tokens from 1 to ",
                       kMaxBatchTokens));
    }
    for (; context > 0 && length > context; length -= context) lengths.push_back(context);
    lengths.push_back(length);
  }
  if (lengths.empty()) return absl::InvalidArgumentError(absl::StrCat(name, ": no lengths in it"));
  return lengths;
}

absl::StatusOr<std::vector<int64_t>> FromFile(const std::string& path, int64_t context) {
  if (path == "-") return FromText(std::cin, "standard input", context);
  std::ifstream file(path);
  std::error_code error;
  if (!file || std::filesystem::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot read the lengths"));
  }
  return FromText(file, path, context);
}

absl::StatusOr<std::vector<int64_t>> FromData(const LengthOptions& options) {
  DatasetOptions dataset_options;
  dataset_options.sources = {{options.data}};
  dataset_options.max_length =
      options.context > 0 ? static_cast<int64_t>(options.context) : kMaxBatchTokens;
  dataset_options.seed = options.seed;
  const absl::StatusOr<std::unique_ptr<Dataset>> dataset = Dataset::Open(dataset_options);
  if (!dataset.ok()) return dataset.status();
  int64_t tokens = (*dataset)->training_tokens();
  if (options.tokens > 0) tokens = std::min(tokens, static_cast<int64_t>(options.tokens));
  DataCursor cursor = (*dataset)->Begin();
  std::vector<int64_t> lengths;
  for (const SequenceRef& sequence : (*dataset)->NextBatch(cursor, tokens)) {
    lengths.push_back(sequence.length);
  }
  return lengths;
}

}  // namespace

void AddLengthOptions(const Command& command, LengthOptions& options) {
  command
      .AddOption("--lengths", options.file,
                 "from a text file, a length in tokens on each line; - reads standard input")
      .Group("Sequences");
  command
      .AddOption("--data", options.data,
                 "a batch of a token data set (longspan data build makes one)")
      .Group("Sequences");
  command
      .AddOption("--mix", options.mix,
                 absl::StrCat("drawn from a length mix: ", absl::StrJoin(LengthMixes(), ", ")))
      .Group("Sequences");
  command
      .AddOption("--tokens", options.tokens,
                 "of the batch: needed by --mix; at most so many of --data; 32M is 2^25")
      .Size()
      .Group("Sequences");
  command
      .AddOption("--context", options.context,
                 "longer sequences are cut into pieces of this many tokens")
      .Size()
      .Group("Sequences");
  command.AddOption("--seed", options.seed, "of --mix and --data (default 1)").Group("Sequences");
}

absl::StatusOr<std::vector<int64_t>> ChooseLengths(const LengthOptions& options) {
  const int given = !options.file.empty() + !options.data.empty() + !options.mix.empty();
  if (given != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        given == 0 ? "which sequences? give" : "give only one of", " --lengths FILE, --data FILE",
        given == 0 ? " or" : " and", " --mix NAME --tokens N"));
  }
  if (options.tokens > kMaxBatchTokens || options.context > kMaxBatchTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tokens and --context are at most ", kMaxBatchTokens));
  }
  if (!options.data.empty()) return FromData(options);
  if (!options.file.empty()) {
    if (options.tokens > 0) {
      return absl::InvalidArgumentError("--tokens is for --mix and --data: --lengths takes all");
    }
    return FromFile(options.file, static_cast<int64_t>(options.context));
  }
  LengthMixRequest request;
  request.mix = options.mix;
  request.tokens = static_cast<int64_t>(options.tokens);
  request.context = static_cast<int64_t>(options.context);
  request.seed = options.seed;
  const std::vector<std::string> mixes = LengthMixes();
  if (request.tokens == 0 && std::find(mixes.begin(), mixes.end(), request.mix) != mixes.end()) {
    return absl::InvalidArgumentError("--mix needs --tokens N, the tokens of the batch");
  }
  return DrawLengths(request);
}

}  // namespace longspan
