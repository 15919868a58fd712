#include "checkpoint/manifest.h"

#include <gtest/gtest.h>

#include "checkpoint/checksum.h"

namespace longspan {
namespace {

uint64_t Crc(const std::string& text) {
  return ExtendCrc64(0, text.data(), static_cast<int64_t>(text.size()));
}

// A tensor of the bytes "abcdefghij" (u8), cut at `cut`.
std::vector<RankContribution> TwoRanks(int64_t cut) {
  const std::string bytes = "abcdefghij";
  std::vector<RankContribution> ranks(2);
  for (int r = 0; r < 2; ++r) {
    const int64_t begin = r == 0 ? 0 : cut;
    const int64_t end = r == 0 ? cut : 10;
    ranks[r].tensors = {
        {"/parameters", "w", DType::kU8, {2, 5}, Crc(bytes.substr(begin, end - begin))}};
    ranks[r].file.name = r == 0 ? "rank-00000.h5" : "rank-00001.h5";
    ranks[r].file.bytes = 4096 + (end - begin);
    ranks[r].file.chunk_crc32c = {17, 4000000000};
    if (end > begin) ranks[r].file.regions = {{0, begin, end, 4096}};
  }
  return ranks;
}

Manifest Joined(int64_t cut) {
  Manifest manifest;
  manifest.run_id = "run";
  manifest.generation = 3;
  manifest.step = 200;
  manifest.chunk_bytes = 4096;
  manifest.run = R"({"seed":1,"rate":0.1})";
  const absl::Status status = JoinContributions(TwoRanks(cut), manifest);
  EXPECT_TRUE(status.ok()) << status;
  for (ManifestFile& file : manifest.files) {
    file.chunk_crc32c.resize((file.bytes + 4095) / 4096);
  }
  return manifest;
}

std::string Replace(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from << " in " << text;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(ManifestTest, StateHashDoesNotDependOnTheCut) {
  const Manifest whole = Joined(10);
  EXPECT_EQ(whole.tensors[0].crc64, Crc("abcdefghij"));
  for (int64_t cut : {0, 1, 5, 9}) {
    EXPECT_EQ(Joined(cut).state_hash, whole.state_hash) << cut;
  }
  Manifest other = Joined(10);
  other.tensors[0].shape = {5, 2};
  EXPECT_NE(StateHash(other.tensors), whole.state_hash);
}

TEST(ManifestTest, EveryElementIsHeldExactlyOnce) {
  Manifest manifest;
  auto gap = TwoRanks(5);
  gap[1].file.regions[0].flat_begin = 6;
  absl::Status status = JoinContributions(gap, manifest);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_NE(status.message().find("[5, 6) of /parameters/w are held by no rank"),
            absl::string_view::npos)
      << status;

  auto overlap = TwoRanks(5);
  overlap[1].file.regions[0].flat_begin = 4;
  status = JoinContributions(overlap, manifest);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_NE(status.message().find("[4, 5) of /parameters/w are held by rank 1 and"),
            absl::string_view::npos)
      << status;

  auto end = TwoRanks(5);
  end[1].file.regions.clear();
  EXPECT_TRUE(absl::IsInvalidArgument(JoinContributions(end, manifest)));

  auto shapes = TwoRanks(5);
  shapes[1].tensors[0].shape = {10};
  EXPECT_TRUE(absl::IsInvalidArgument(JoinContributions(shapes, manifest)));
}

TEST(ManifestTest, ContributionsGoBothWays) {
  const RankContribution one = TwoRanks(5)[1];
  const auto text = SerializeContribution(one);
  ASSERT_TRUE(text.ok());
  const auto back = ParseContribution(*text);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*SerializeContribution(*back), *text);
  EXPECT_FALSE(ParseContribution("{}").ok());
  EXPECT_FALSE(ParseContribution(Replace(*text, "[0,5,10,4096]", "[1,5,10,4096]")).ok());
  RankContribution odd = one;
  odd.tensors[0].tensor = "\xff";
  EXPECT_TRUE(absl::IsInvalidArgument(SerializeContribution(odd).status()));
}

TEST(ManifestTest, GoesBothWaysAndIgnoresUnknownKeys) {
  const Manifest manifest = Joined(5);
  const auto text = SerializeManifest(manifest);
  ASSERT_TRUE(text.ok());
  for (const std::string& variant :
       {*text, Replace(*text, "{\"format\"", "{\"later\":[1,{}],\"format\""),
        Replace(*text, "{\"group\"", "{\"later\":null,\"group\"")}) {
    const auto back = ParseManifest(variant, "manifest.json");
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*SerializeManifest(*back), *text);
    EXPECT_EQ(back->run, R"({"seed":1,"rate":0.1})");
  }
}

TEST(ManifestTest, RefusesOtherVersionsByName) {
  const std::string text = *SerializeManifest(Joined(5));
  const auto newer = ParseManifest(Replace(text, "\"version\":1", "\"version\":2"), "there");
  EXPECT_TRUE(absl::IsFailedPrecondition(newer.status()));
  EXPECT_NE(newer.status().message().find("there: longspan-checkpoint version 2"),
            absl::string_view::npos)
      << newer.status();
  EXPECT_TRUE(absl::IsDataLoss(
      ParseManifest(Replace(text, "\"version\":1", "\"version\":0"), "there").status()));
  EXPECT_TRUE(absl::IsDataLoss(
      ParseManifest(Replace(text, "longspan-checkpoint", "longspan-plan"), "there").status()));
}

TEST(ManifestTest, RefusesWhatContradictsItself) {
  const std::string text = *SerializeManifest(Joined(5));
  const std::pair<const char*, const char*> changes[] = {
      {"\"dtype\":\"u8\"", "\"dtype\":\"u9\""},
      {"\"shape\":[2,5]", "\"shape\":[2,1]"},
      {"\"shape\":[2,5]", "\"shape\":[-2,-5]"},
      {"\"shape\":[2,5]", "\"shape\":[4611686018427387904,4]"},
      {"[0,0,5,4096]", "[1,0,5,4096]"},
      {"[0,0,5,4096]", "[0,5,0,4096]"},
      {"[0,0,5,4096]", "[0,0,5,4097]"},
      {"[0,0,5,4096]", "[0,0,5,-1]"},
      {"[0,0,5,4096]", "[0,0,5]"},
      {"rank-00001.h5", "../rank-00001.h5"},
      {"\"bytes\":4101", "\"bytes\":14101"},
      {"\"chunk_bytes\":4096", "\"chunk_bytes\":0"},
      {"\"step\":200", "\"step\":\"200\""},
      {"\"state_hash\":\"", "\"state_hash\":\"0"},
  };
  for (const auto& [from, to] : changes) {
    const auto parsed = ParseManifest(Replace(text, from, to), "there");
    EXPECT_TRUE(absl::IsDataLoss(parsed.status()))
        << from << " -> " << to << ": " << parsed.status();
  }
  for (size_t length = 0; length + 2 < text.size(); length += 7) {
    EXPECT_TRUE(absl::IsDataLoss(ParseManifest(text.substr(0, length), "there").status()));
  }
  Manifest no_json = Joined(5);
  no_json.run = "{";
  EXPECT_TRUE(absl::IsInvalidArgument(SerializeManifest(no_json).status()));
}

TEST(ManifestTest, CommitRecordKnowsEveryFlippedBit) {
  const CommitRecord record{"run", 3, 200, 0x123456789abcdef, "2026-01-01T00:00:00Z"};
  const std::string text = SerializeCommit(record);
  const auto back = ParseCommit(text, "COMMIT");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->run_id, "run");
  EXPECT_EQ(back->generation, 3);
  EXPECT_EQ(back->step, 200);
  EXPECT_EQ(back->root_hash, record.root_hash);
  EXPECT_EQ(back->time, record.time);
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    std::string damaged = text;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(ParseCommit(damaged, "COMMIT").ok()) << damaged;
  }
  for (size_t length = 0; length < text.size(); ++length) {
    EXPECT_FALSE(ParseCommit(text.substr(0, length), "COMMIT").ok()) << length;
  }
}

}  // namespace
}  // namespace longspan
