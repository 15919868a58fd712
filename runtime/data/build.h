// BuildTokenFile: text -> token data set, in memory that does not grow with the corpus.
#ifndef LONGSPAN_RUNTIME_DATA_BUILD_H_
#define LONGSPAN_RUNTIME_DATA_BUILD_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longspan {

// Which documents.
struct TextOptions {
  enum class Split { kFile, kLine, kParagraph };

  // Directories (all regular files below, sorted by name; hidden ones and links to directories are
  // passed over; binary ones, with a NUL in the first 8 KiB, are skipped and counted) and files.
  // Files whose name ends in .jsonl or .ndjson hold one JSON object a line, of at most 256 MiB,
  // whose `field` is a document.
  std::vector<std::string> inputs;
  std::vector<std::string> extensions;  // of files in directories, e.g. ".c"; none: all
  std::string field = "text";
  Split split = Split::kFile;  // what is a document in a text file; paragraphs end at empty lines
  int64_t maximum_documents = 0;  // stop there; 0: no limit
  int64_t maximum_bytes = 0;      // stop after the document that reaches it; 0: no limit
};

struct BuildOptions {
  TextOptions text;
  std::string output;  // replaced when it exists, once the new file is complete
  // "byte", the path of a SentencePiece .model, or of a token data set, whose tokenizer is used.
  std::string tokenizer = "byte";
  int64_t train_vocabulary = 0;  // > 0: trains a SentencePiece model of that size on a sample first
  int64_t train_sample_bytes =
      10 << 20;  // lines drawn evenly over the corpus; bounds the memory of training
};

struct TextReport {
  int64_t documents = 0;
  int64_t bytes = 0;  // of their text
  int64_t files = 0;
  int64_t skipped_binary = 0;
  int64_t skipped_empty = 0;  // files and JSON lines without text
  int64_t unreadable = 0;     // in directories; an unreadable input is an error
  std::string first_unreadable;
};

struct BuildReport {
  TextReport text;
  int64_t tokens = 0;  // with one end of sequence a document
  int64_t vocabulary = 0;
  std::string tokenizer_kind;
};

struct BuildProgress {
  const char* phase = "";  // "sample", "train", "tokenize" or "write"
  int64_t done = 0;        // bytes, of input or of output
  int64_t total = 0;       // 0: unknown
  int64_t documents = 0;
};

// `progress` (may be empty) is called about once a MiB. Errors: InvalidArgument for options, bad
// JSON (file and line) and a corpus without text; NotFound for a missing input; those of the file
// system for the output. Nothing is left behind then.
absl::StatusOr<BuildReport> BuildTokenFile(
    const BuildOptions& options, const std::function<void(const BuildProgress&)>& progress);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_BUILD_H_
