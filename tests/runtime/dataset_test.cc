#include "runtime/data/dataset.h"

#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/data/random_order.h"
#include "temporary_directory.h"
#include "token_data.h"

namespace longspan {
namespace {

using Key = std::tuple<int32_t, int64_t, int64_t>;
Key KeyOf(const SequenceRef& s) { return {s.source, s.document, s.piece}; }

std::unique_ptr<Dataset> Open(const DatasetOptions& options) {
  auto dataset = Dataset::Open(options);
  EXPECT_TRUE(dataset.ok()) << dataset.status();
  return dataset.ok() ? *std::move(dataset) : nullptr;
}

std::string MessageOf(const DatasetOptions& options) {
  const auto dataset = Dataset::Open(options);
  return dataset.ok() ? "" : std::string(dataset.status().message());
}

void ExpectIn(const std::string& part, const std::string& text) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

class DatasetTest : public ::testing::Test {
 protected:
  // One source of random documents, cut into pieces of up to 16 tokens.
  DatasetOptions OneSource(int documents = 60, int seed = 1) {
    const std::string path = directory_ / ("source" + std::to_string(seed) + ".h5");
    data_ = RandomTokenData(documents, 50, 300, seed);
    WriteTokenData(path, data_);
    DatasetOptions options;
    options.sources = {{path}};
    options.max_length = 16;
    return options;
  }

  const TemporaryDirectory directory_;
  TokenData data_;  // of the last OneSource
};

std::vector<SequenceRef> Draw(const Dataset& dataset, DataCursor& cursor, int64_t count) {
  std::vector<SequenceRef> drawn;
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<SequenceRef> batch = dataset.NextBatch(cursor, 1);
    EXPECT_EQ(batch.size(), 1u);
    drawn.push_back(batch[0]);
  }
  return drawn;
}

TEST(Permutation, IsAPermutationThatDependsOnItsKey) {
  for (int64_t size = 1; size < 300; ++size) {
    const Permutation a(size, 1), b(size, 1), c(size, 2);
    std::set<int64_t> seen;
    int64_t alike = 0;
    for (int64_t i = 0; i < size; ++i) {
      EXPECT_EQ(a.At(i), b.At(i));
      alike += a.At(i) == c.At(i);
      seen.insert(a.At(i));
    }
    ASSERT_EQ(static_cast<int64_t>(seen.size()), size);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), size - 1);
    EXPECT_LT(alike, size / 2 + 20);
  }
  for (const int64_t size : {int64_t{1} << 40, (int64_t{1} << 40) + 1}) {
    const Permutation large(size, 3);
    for (int64_t i = 0; i < 1000; ++i) {
      ASSERT_GE(large.At(i), 0);
      ASSERT_LT(large.At(i), size);
    }
  }
}

// Each element lands in each place about equally often over many keys.
TEST(Permutation, IsUniform) {
  constexpr int kSize = 7, kKeys = 14000;
  int counts[kSize][kSize] = {};
  for (int key = 0; key < kKeys; ++key) {
    const Permutation permutation(kSize, key);
    for (int i = 0; i < kSize; ++i) ++counts[i][permutation.At(i)];
  }
  const double expected = double{kKeys} / kSize;
  double chi_square = 0;
  for (const auto& row : counts) {
    for (const int count : row) chi_square += std::pow(count - expected, 2) / expected;
  }
  EXPECT_LT(chi_square, 70);  // 36 degrees of freedom: 0.06% of uniform draws exceed it
}

// Known values: an order that changed would silently change every run that is resumed.
TEST(Permutation, StaysAsItIs) {
  const Permutation permutation(10, 42);
  std::vector<int64_t> order;
  for (int i = 0; i < 10; ++i) order.push_back(permutation.At(i));
  EXPECT_EQ(order, (std::vector<int64_t>{8, 0, 1, 2, 6, 5, 4, 7, 9, 3}));
}

TEST_F(DatasetTest, PiecesCoverEachTargetOnce) {
  int64_t dropped_in_all = 0;
  for (int seed = 1; seed <= 10; ++seed) {
    DatasetOptions options = OneSource(40, seed);
    options.max_length = 1 + seed * 3;
    const auto dataset = Open(options);
    ASSERT_NE(dataset, nullptr);
    std::vector<int> times(data_.tokens.size());
    int64_t dropped = 0, targets = 0, longest = 0;
    DataCursor cursor = dataset->Begin();
    for (const SequenceRef& s : Draw(*dataset, cursor, dataset->sequences())) {
      EXPECT_GE(s.length, 1);
      EXPECT_LE(s.length, options.max_length);
      longest = std::max(longest, s.length);
      EXPECT_EQ(s.token_begin,
                static_cast<int64_t>(data_.offsets[s.document]) + s.piece * options.max_length);
      for (int64_t i = 0; i < s.length; ++i) ++times[s.token_begin + i + 1];
      std::vector<int32_t> ids(s.length + 1);
      ASSERT_TRUE(dataset->Read(s, 0, s.length, ids.data()).ok());
      EXPECT_TRUE(std::equal(ids.begin(), ids.end(), data_.tokens.begin() + s.token_begin));
    }
    for (size_t d = 0; d + 1 < data_.offsets.size(); ++d) {
      const auto begin = data_.offsets[d], end = data_.offsets[d + 1];
      dropped += end - begin < 2;
      // Nothing predicts the first token.
      EXPECT_TRUE(begin == end || times[begin] == 0);
      for (auto t = begin + 1; t < end; ++t) {
        EXPECT_EQ(times[t], 1);
        ++targets;
      }
    }
    dropped_in_all += dropped;
    EXPECT_EQ(dataset->dropped_documents(), dropped);
    EXPECT_EQ(dataset->training_tokens(), targets);
    EXPECT_EQ(dataset->longest_sequence(), longest);
  }
  EXPECT_GT(dropped_in_all, 0);
}

TEST_F(DatasetTest, DrawsEachSequenceOnceAnEpochInANewOrder) {
  const auto dataset = Open(OneSource());
  ASSERT_NE(dataset, nullptr);
  DataCursor cursor = dataset->Begin();
  std::vector<std::vector<SequenceRef>> epochs;
  for (int epoch = 0; epoch < 3; ++epoch) {
    EXPECT_EQ(cursor.sources[0].epoch, epoch);
    epochs.push_back(Draw(*dataset, cursor, dataset->sequences()));
    std::set<Key> seen;
    for (const SequenceRef& s : epochs.back()) seen.insert(KeyOf(s));
    EXPECT_EQ(static_cast<int64_t>(seen.size()), dataset->sequences());
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
  EXPECT_FALSE(std::is_sorted(epochs[0].begin(), epochs[0].end(),
                              [](const auto& a, const auto& b) { return KeyOf(a) < KeyOf(b); }));
  EXPECT_EQ(cursor.sequences, 3 * dataset->sequences());
  EXPECT_EQ(cursor.sources[0].tokens, 3 * dataset->training_tokens());
}

TEST_F(DatasetTest, OrderDependsOnTheSeedAlone) {
  DatasetOptions options = OneSource();
  const auto first = Open(options), second = Open(options);
  options.seed = 2;
  const auto other = Open(options);
  DataCursor a = first->Begin(), b = second->Begin(), c = other->Begin();
  // Batch sizes differ, the order of sequences does not.
  const std::vector<SequenceRef> one_by_one = Draw(*first, a, 40);
  std::vector<SequenceRef> batched;
  while (batched.size() < 40) {
    for (const SequenceRef& s : second->NextBatch(b, 37)) batched.push_back(s);
  }
  batched.resize(40);
  EXPECT_EQ(one_by_one, batched);
  EXPECT_NE(one_by_one, Draw(*other, c, 40));
}

TEST_F(DatasetTest, BatchesFillUpToTheirTokensAcrossEpochs) {
  const auto dataset = Open(OneSource(10));
  DataCursor cursor = dataset->Begin();
  bool crossed = false;
  for (int step = 0; step < 100; ++step) {
    DataCursor before = cursor;
    const std::vector<SequenceRef> batch = dataset->NextBatch(cursor, 40);
    int64_t tokens = 0;
    for (const SequenceRef& s : batch) tokens += s.length;
    EXPECT_LE(tokens, 40);
    DataCursor after = cursor;
    EXPECT_GT(tokens + dataset->NextBatch(after, 1)[0].length, 40) << "the next one would have fit";
    crossed |= cursor.sources[0].epoch > before.sources[0].epoch && cursor.sources[0].next > 0;
    EXPECT_EQ(cursor.sequences, before.sequences + static_cast<int64_t>(batch.size()));
  }
  EXPECT_TRUE(crossed) << "no batch held the end of an epoch and the beginning of the next";
}

TEST_F(DatasetTest, ASequenceLargerThanTheBatchComesAlone) {
  const auto dataset = Open(OneSource());
  DataCursor cursor = dataset->Begin();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(dataset->NextBatch(cursor, 1).size(), 1u);
}

TEST_F(DatasetTest, ACursorContinuesWhereItStood) {
  DatasetOptions options = OneSource(30, 1);
  options.sources.push_back(OneSource(50, 2).sources[0]);
  options.sources[1].weight = 2.5;
  const auto dataset = Open(options);
  DataCursor cursor = dataset->Begin();
  for (int i = 0; i < 57; ++i) dataset->NextBatch(cursor, 33);
  const DataCursor saved = cursor;
  std::vector<std::vector<SequenceRef>> expected, found;
  for (int i = 0; i < 50; ++i) expected.push_back(dataset->NextBatch(cursor, 33));
  const auto again = Open(options);
  DataCursor restored = saved;
  for (int i = 0; i < 50; ++i) found.push_back(again->NextBatch(restored, 33));
  EXPECT_EQ(found, expected);
  EXPECT_EQ(restored, cursor);
}

TEST_F(DatasetTest, WeightsAreSharesOfTokens) {
  DatasetOptions options = OneSource(30, 1);
  options.sources.push_back(OneSource(80, 2).sources[0]);
  options.sources.push_back(OneSource(11, 3).sources[0]);
  const double weights[] = {0.5, 3.0, 1.25};
  for (int i = 0; i < 3; ++i) options.sources[i].weight = weights[i];
  const auto dataset = Open(options);
  DataCursor cursor = dataset->Begin();
  for (int i = 0; i < 3000; ++i) {
    dataset->NextBatch(cursor, 1);
    double total = 0;
    for (const auto& source : cursor.sources) total += static_cast<double>(source.tokens);
    for (int s = 0; s < 3; ++s) {
      const double share = total * weights[s] / 4.75;
      // The other sources may each be one sequence off as well.
      EXPECT_NEAR(static_cast<double>(cursor.sources[s].tokens), share, 2 * options.max_length);
    }
  }
}

TEST_F(DatasetTest, ValidationIsAStableDisjointShareOfDocuments) {
  DatasetOptions options = OneSource(400);
  options.validation_share = 0.2;
  const auto dataset = Open(options), again = Open(options);
  EXPECT_EQ(dataset->validation(), again->validation());
  std::set<int64_t> held_out, trained;
  for (const SequenceRef& s : dataset->validation()) held_out.insert(s.document);
  DataCursor cursor = dataset->Begin();
  for (const SequenceRef& s : Draw(*dataset, cursor, 2 * dataset->sequences())) {
    trained.insert(s.document);
  }
  for (const int64_t document : held_out) EXPECT_EQ(trained.count(document), 0u);
  EXPECT_EQ(static_cast<int64_t>(held_out.size() + trained.size()) + dataset->dropped_documents(),
            400);
  EXPECT_NEAR(static_cast<double>(held_out.size()), 80, 32);  // four standard deviations
  EXPECT_TRUE(std::is_sorted(dataset->validation().begin(), dataset->validation().end(),
                             [](const auto& a, const auto& b) { return KeyOf(a) < KeyOf(b); }));
  options.seed = 2;
  EXPECT_NE(Open(options)->validation(), dataset->validation());
}

TEST_F(DatasetTest, ValidationMayBeAFile) {
  DatasetOptions options = OneSource(30, 1);
  options.validation_path = OneSource(20, 2).sources[0].path;
  const auto dataset = Open(options);
  ASSERT_NE(dataset, nullptr);
  ASSERT_FALSE(dataset->validation().empty());
  const SequenceRef& s = dataset->validation().back();
  EXPECT_EQ(s.source, -1);
  std::vector<int32_t> ids(s.length + 1);
  ASSERT_TRUE(dataset->Read(s, 0, s.length, ids.data()).ok());
  EXPECT_TRUE(std::equal(ids.begin(), ids.end(), data_.tokens.begin() + s.token_begin));
  ExpectIn(options.validation_path, dataset->Describe(s));
}

TEST_F(DatasetTest, ReadsJustTheBytesAskedFor) {
  const auto dataset = Open(OneSource());
  DataCursor cursor = dataset->Begin();
  SequenceRef s;
  do {
    s = dataset->NextBatch(cursor, 1)[0];
  } while (s.length < 12);
  EXPECT_EQ(dataset->bytes_read(), 0);
  std::vector<int32_t> ids(5);
  ASSERT_TRUE(dataset->Read(s, 3, 7, ids.data()).ok());
  EXPECT_EQ(dataset->bytes_read(), 5 * 2);
  EXPECT_TRUE(std::equal(ids.begin(), ids.end(), data_.tokens.begin() + s.token_begin + 3));
  EXPECT_FALSE(dataset->Read(s, 0, s.length + 1, ids.data()).ok());
  EXPECT_FALSE(dataset->Read(s, -1, 2, ids.data()).ok());
  EXPECT_FALSE(dataset->Read(s, 5, 4, ids.data()).ok());
  EXPECT_EQ(dataset->bytes_read(), 5 * 2);
}

TEST_F(DatasetTest, DropsLongDocumentsWhereAsked) {
  DatasetOptions options = OneSource();
  options.drop_long_documents = true;
  const auto dataset = Open(options);
  int64_t kept = 0;
  for (size_t d = 0; d + 1 < data_.offsets.size(); ++d) {
    const int64_t n = static_cast<int64_t>(data_.offsets[d + 1] - data_.offsets[d]);
    kept += n >= 2 && n - 1 <= options.max_length;
  }
  EXPECT_EQ(dataset->sequences(), kept);
  EXPECT_EQ(dataset->dropped_documents(), 60 - kept);
}

TEST_F(DatasetTest, FingerprintKnowsContentAndOptionsButNoPaths) {
  DatasetOptions options = OneSource();
  const std::string fingerprint = Open(options)->fingerprint();
  DatasetOptions moved = options;
  moved.sources[0].path = directory_ / "moved.h5";
  WriteTokenData(moved.sources[0].path, data_);
  EXPECT_EQ(Open(moved)->fingerprint(), fingerprint);
  std::set<std::string> all = {fingerprint};
  const auto changed = [&](auto&& change) {
    DatasetOptions copy = options;
    change(copy);
    EXPECT_TRUE(all.insert(Open(copy)->fingerprint()).second);
  };
  changed([](DatasetOptions& o) { o.seed = 2; });
  changed([](DatasetOptions& o) { o.max_length = 17; });
  changed([](DatasetOptions& o) { o.drop_long_documents = true; });
  changed([](DatasetOptions& o) { o.validation_share = 0.1; });
  changed([](DatasetOptions& o) { o.validation_path = o.sources[0].path; });
  changed([](DatasetOptions& o) { o.sources[0].weight = 2; });
  changed([](DatasetOptions& o) { o.sources.push_back(o.sources[0]); });
  TokenData shifted = data_;  // one token moves from one document to the next
  for (size_t d = 1; d + 1 < shifted.offsets.size(); ++d) {
    if (shifted.offsets[d] > shifted.offsets[d - 1]) {
      --shifted.offsets[d];
      break;
    }
  }
  WriteTokenData(directory_ / "shifted.h5", shifted);
  changed([&](DatasetOptions& o) { o.sources[0].path = directory_ / "shifted.h5"; });
}

TEST_F(DatasetTest, DescribesSequences) {
  const DatasetOptions options = OneSource();
  const auto dataset = Open(options);
  DataCursor cursor = dataset->Begin();
  int whole = 0, pieces = 0;
  for (const SequenceRef& s : Draw(*dataset, cursor, dataset->sequences())) {
    const std::string document =
        "document " + std::to_string(s.document) + " in " + options.sources[0].path;
    const auto n = data_.offsets[s.document + 1] - data_.offsets[s.document];
    if (static_cast<int64_t>(n) - 1 <= options.max_length) {
      EXPECT_EQ(dataset->Describe(s), document);
      ++whole;
    } else {
      EXPECT_EQ(dataset->Describe(s), "piece " + std::to_string(s.piece) + " of " + document);
      ++pieces;
    }
  }
  EXPECT_GT(whole, 0);
  EXPECT_GT(pieces, 0);
}

TEST_F(DatasetTest, TokenizersMustAgree) {
  TokenData a = RandomTokenData(5, 20, 300, 1), b = RandomTokenData(5, 20, 300, 2);
  a.tokenizer_kind = b.tokenizer_kind = "sentencepiece";
  a.tokenizer = "model one";
  b.tokenizer = "model two";
  const TokenData plain = RandomTokenData(5, 20, 280, 3);
  WriteTokenData(directory_ / "a.h5", a);
  WriteTokenData(directory_ / "b.h5", b);
  WriteTokenData(directory_ / "plain.h5", plain);
  DatasetOptions options;
  options.sources = {{directory_ / "plain.h5"}, {directory_ / "a.h5"}};
  const auto dataset = Open(options);
  EXPECT_EQ(dataset->vocabulary(), 300);
  EXPECT_EQ(dataset->tokenizer_kind(), "sentencepiece");
  EXPECT_EQ(*dataset->tokenizer(), "model one");
  options.sources.push_back({directory_ / "b.h5"});
  ExpectIn("different tokenizers", MessageOf(options));
}

TEST_F(DatasetTest, RefusesWhatCannotBeTrainedOn) {
  const DatasetOptions good = OneSource();
  const auto message = [&](auto&& change) {
    DatasetOptions options = good;
    change(options);
    return MessageOf(options);
  };
  ExpectIn("data.sources", message([](DatasetOptions& o) { o.sources.clear(); }));
  ExpectIn("weight", message([](DatasetOptions& o) { o.sources[0].weight = 0; }));
  ExpectIn("max_length", message([](DatasetOptions& o) { o.max_length = 0; }));
  ExpectIn("data.validation", message([](DatasetOptions& o) { o.validation_share = 1; }));
  ExpectIn("not both", message([](DatasetOptions& o) {
             o.validation_share = 0.5;
             o.validation_path = o.sources[0].path;
           }));
  ExpectIn("nowhere.h5", message([](DatasetOptions& o) { o.sources[0].path = "nowhere.h5"; }));
  TokenData empty;
  empty.Add({1});
  empty.Add({});
  WriteTokenData(directory_ / "empty.h5", empty);
  const std::string nothing =
      message([&](DatasetOptions& o) { o.sources[0].path = directory_ / "empty.h5"; });
  ExpectIn("nothing is left to train on", nothing);
  ExpectIn("empty.h5", nothing);
}

}  // namespace
}  // namespace longspan
