// Dataset: weighted sources of documents, cut into sequences, in an order that depends on the seed
// alone.
//
// A sequence has s inputs and s targets; target i is the token after input i. A document of n
// tokens gives n - 1 inputs; documents with n < 2 are dropped and counted. Pieces of a long
// document cut its inputs at multiples of max_length, so no target is lost; positions start at 0 in
// each piece. Each source is drawn without replacement, epoch by epoch, each epoch in a new
// pseudo-random order; epochs join without a break. The next sequence comes from the source that is
// furthest behind its share of tokens. Thread-safe: all calls are const; the position is the
// caller's DataCursor.
#ifndef LONGSPAN_RUNTIME_DATA_DATASET_H_
#define LONGSPAN_RUNTIME_DATA_DATASET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/data/token_file.h"

namespace longspan {

struct DataSource {
  std::string path;
  double weight = 1.0;  // share of tokens, relative
};

struct DatasetOptions {
  std::vector<DataSource> sources;
  double validation_share = 0;  // of documents, by a hash of (seed, source, document)
  std::string validation_path;  // instead of a share
  int64_t max_length = 65536;   // tokens
  bool drop_long_documents = false;
  uint64_t seed = 1;
};

// One sequence: where it lies.
struct SequenceRef {
  int32_t source = 0;  // index into the sources; -1: the validation file
  int64_t document = 0;
  int64_t piece = 0;        // of that document
  int64_t token_begin = 0;  // first input, in the file
  int64_t length = 0;       // inputs = targets; token_begin + length is the last target
  friend bool operator==(const SequenceRef&, const SequenceRef&) = default;
};

// Position in the order; independent of ranks. Saved in checkpoints.
struct DataCursor {
  struct Source {
    int64_t epoch = 0;
    int64_t next = 0;    // sequences of this epoch already drawn
    int64_t tokens = 0;  // drawn so far, all epochs
    friend bool operator==(const Source&, const Source&) = default;
  };
  int64_t sequences = 0;  // drawn so far, all sources
  std::vector<Source> sources;
  friend bool operator==(const DataCursor&, const DataCursor&) = default;
};

class Dataset {
 public:
  // Errors name the file and what to do; InvalidArgument when nothing is left to train on.
  static absl::StatusOr<std::unique_ptr<Dataset>> Open(const DatasetOptions& options);
  virtual ~Dataset() = default;

  virtual DataCursor Begin() const = 0;
  // Takes sequences until the next one would exceed `tokens` (at least one), and moves the cursor
  // past them.
  virtual std::vector<SequenceRef> NextBatch(DataCursor& cursor, int64_t tokens) const = 0;
  // All validation sequences in file order (the same pieces rule).
  virtual const std::vector<SequenceRef>& validation() const = 0;
  // Tokens [begin, end] of the sequence's own positions: end - begin + 1 ids, so that inputs are
  // the first end - begin and targets the last end - begin. Reads just those bytes.
  virtual absl::Status Read(const SequenceRef& sequence, int64_t begin, int64_t end,
                            int32_t* out) const = 0;

  virtual int64_t sequences() const = 0;        // for training, one epoch, all sources
  virtual int64_t training_tokens() const = 0;  // targets of one epoch, all sources
  virtual int64_t dropped_documents() const = 0;
  virtual int64_t longest_sequence() const = 0;
  // The largest vocabulary of the sources that say one; 0 where none does.
  virtual int64_t vocabulary() const = 0;
  // Of the first source that has one.
  virtual std::string tokenizer_kind() const = 0;
  virtual absl::StatusOr<std::string> tokenizer() const = 0;
  virtual int64_t bytes_read() const = 0;
  // Changes when the content or order would: paths' sizes, counts, options. Compared on resume. No
  // paths in it.
  virtual std::string fingerprint() const = 0;
  // "piece 3 of document 17 in data/corpus.h5": for messages.
  virtual std::string Describe(const SequenceRef& sequence) const = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_DATASET_H_
