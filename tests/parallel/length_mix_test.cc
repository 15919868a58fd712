#include "parallel/length_mix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

namespace longspan {
namespace {

using ::testing::HasSubstr;

// Share of tokens (or of samples) in sequences of [low, high) tokens.
double Share(const std::vector<int64_t>& lengths, int64_t low, int64_t high, bool of_tokens) {
  double part = 0, all = 0;
  for (const int64_t length : lengths) {
    const double weight = of_tokens ? static_cast<double>(length) : 1;
    all += weight;
    if (length >= low && length < high) part += weight;
  }
  return part / all;
}

std::vector<int64_t> Draw(const char* mix, int64_t tokens, int64_t context = 0, uint64_t seed = 1) {
  const absl::StatusOr<std::vector<int64_t>> lengths = DrawLengths({mix, tokens, context, seed});
  EXPECT_TRUE(lengths.ok()) << lengths.status();
  return lengths.ok() ? *lengths : std::vector<int64_t>();
}

// The tables of parallel/README.md, as shares of tokens or of samples.
TEST(LengthMixTest, SharesAreThoseOfTheSources) {
  const std::vector<int64_t> github = Draw("github", 4'000'000'000);
  EXPECT_NEAR(Share(github, 0, 2048, true), .142, .01);
  EXPECT_NEAR(Share(github, 8192, 16384, true), .14, .01);
  EXPECT_NEAR(Share(github, 1 << 20, 1 << 22, true), .027, .01);
  const std::vector<int64_t> byted = Draw("byted", 4'000'000'000);
  EXPECT_NEAR(Share(byted, 4096, 8192, true), .102, .01);
  EXPECT_NEAR(Share(byted, 2 << 20, 4 << 20, true), .121, .02);
  const std::vector<int64_t> wikipedia = Draw("wikipedia", 100'000'000);
  EXPECT_NEAR(Share(wikipedia, 0, 1024, false), .879, .005);
  EXPECT_NEAR(Share(wikipedia, 0, 8192, false), .999, .001);
  EXPECT_LE(*std::max_element(wikipedia.begin(), wikipedia.end()), 78 * 1024);
  const std::vector<int64_t> chatqa2 = Draw("chatqa2", 400'000'000);
  EXPECT_NEAR(Share(chatqa2, 0, 4096, false), .315, .01);
  EXPECT_NEAR(Share(chatqa2, 0, 32768, false), .999, .001);
  // The measured files: median 1258 tokens, a tenth of more than 7599.
  const std::vector<int64_t> code = Draw("code", 100'000'000);
  EXPECT_NEAR(Share(code, 0, 1258, false), .5, .01);
  EXPECT_NEAR(Share(code, 7599, 1 << 20, false), .1, .01);
}

TEST(LengthMixTest, DrawsAllTokensAndCutsAtTheContext) {
  for (const std::string& mix : LengthMixes()) {
    const std::vector<int64_t> lengths = Draw(mix.c_str(), 10'000'001, 65536, 3);
    EXPECT_EQ(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}), 10'000'001) << mix;
    EXPECT_LE(*std::max_element(lengths.begin(), lengths.end()), 65536) << mix;
    EXPECT_GE(*std::min_element(lengths.begin(), lengths.end()), 1) << mix;
    EXPECT_EQ(lengths, Draw(mix.c_str(), 10'000'001, 65536, 3)) << mix;
  }
  EXPECT_NE(Draw("github", 1'000'000, 0, 1), Draw("github", 1'000'000, 0, 2));
  EXPECT_EQ(Draw("giant", 3'000'000)[0], 2 << 20);
}

TEST(LengthMixTest, RefusesWhatItCannotDraw) {
  const absl::Status unknown = DrawLengths({"books", 1000}).status();
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("\"books\""));
  for (const std::string& mix : LengthMixes()) {
    EXPECT_THAT(std::string(unknown.message()), HasSubstr(mix));
  }
  EXPECT_THAT(std::string(DrawLengths({"code", 0}).status().message()), HasSubstr("0 tokens"));
  EXPECT_THAT(std::string(DrawLengths({"code", 10, -5}).status().message()),
              HasSubstr("context is -5"));
}

}  // namespace
}  // namespace longspan
