// Parity instead of copies: the code against arithmetic of its own, where every symbol lies, and
// clusters that lose any of their nodes: every loss that the code bears is restored bit by bit, on
// any number of ranks, every larger one is refused, and damage is told from sound bytes.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "checkpoint/checksum.h"
#include "checkpoint/erasure_code.h"
#include "checkpoint/erasure_groups.h"
#include "checkpoint/parity_file.h"
#include "nlohmann/json.hpp"
#include "tier_cluster.h"

namespace longspan {
namespace {

// The field, by the book: polynomials over GF(2) modulo x^8 + x^4 + x^3 + x^2 + 1.
uint8_t Times(uint8_t a, uint8_t b) {
  unsigned product = 0;
  for (int bit = 0; bit < 8; ++bit) {
    if ((b >> bit & 1) != 0) product ^= static_cast<unsigned>(a) << bit;
  }
  for (int bit = 15; bit >= 8; --bit) {
    if ((product >> bit & 1) != 0) product ^= 0x11du << (bit - 8);
  }
  return static_cast<uint8_t>(product);
}

TEST(ErasureCodeTest, MultipliesAndAdds) {
  std::mt19937 random(1);
  for (const int64_t bytes : {1, 15, 31, 63, 64, 65, 127, 200, 4099}) {
    for (int factor = 0; factor<256; factor += bytes> 100 ? 17 : 1) {
      std::string from(static_cast<size_t>(bytes), '\0'), to(from), expected;
      for (char& c : from) c = static_cast<char>(random());
      for (char& c : to) c = static_cast<char>(random());
      expected = to;
      for (size_t i = 0; i < from.size(); ++i) {
        expected[i] = static_cast<char>(
            expected[i] ^ Times(static_cast<uint8_t>(factor), static_cast<uint8_t>(from[i])));
      }
      Multiplier(static_cast<uint8_t>(factor)).AddProduct(from.data(), to.data(), bytes);
      ASSERT_EQ(to, expected) << factor << " on " << bytes << " bytes";
    }
  }
}

TEST(ErasureCodeTest, AnyDataSymbolsGiveBackTheRest) {
  std::mt19937 random(2);
  int64_t recovered = 0;
  for (int data = 1; data <= 7; ++data) {
    for (int parity = 1; data + parity <= 9; ++parity) {
      // One byte a symbol.
      std::vector<uint8_t> stripe;
      for (int d = 0; d < data; ++d) stripe.push_back(static_cast<uint8_t>(random()));
      for (int p = 0; p < parity; ++p) {
        uint8_t sum = 0;
        for (int d = 0; d < data; ++d) {
          const uint8_t factor = ParityFactor(data, p, d);
          // What FORMAT.md says that it is.
          ASSERT_EQ(Times(factor, static_cast<uint8_t>((data + p) ^ d)), 1);
          sum ^= Times(factor, stripe[d]);
        }
        stripe.push_back(sum);
      }
      for (unsigned there = 0; there < 1u << (data + parity); ++there) {
        if (std::popcount(there) != data) continue;
        std::vector<int> symbols;
        for (int i = 0; i < data + parity; ++i) {
          if ((there >> i & 1) != 0) symbols.push_back(i);
        }
        for (int wanted = 0; wanted < data; ++wanted) {
          const auto factors = RecoveryFactors(data, symbols, wanted);
          ASSERT_TRUE(factors.ok()) << factors.status();
          uint8_t sum = 0;
          for (int i = 0; i < data; ++i) sum ^= Times((*factors)[i], stripe[symbols[i]]);
          ASSERT_EQ(sum, stripe[wanted]) << data << "+" << parity << ", " << there;
          ++recovered;
        }
      }
    }
  }
  EXPECT_GT(recovered, 1000);
  EXPECT_FALSE(RecoveryFactors(3, {0, 1}, 2).ok());
  EXPECT_FALSE(RecoveryFactors(3, {0, 1, 1}, 2).ok());
  EXPECT_FALSE(RecoveryFactors(3, {0, 1, 3}, 3).ok());
}

TEST(ErasureGroupsTest, AStripeIsSpreadOverAllMembers) {
  for (int data = 1; data <= 6; ++data) {
    for (int parity = 1; parity <= 4; ++parity) {
      ErasureLayout layout;
      layout.data = data;
      layout.parity = parity;
      layout.symbol_bytes = 10;
      layout.file_bytes.assign(static_cast<size_t>(data + parity), 100);
      std::set<std::pair<int, int>> kept;  // keeper, parity symbol
      for (int member = 0; member < layout.members(); ++member) {
        for (int d = 0; d < data; ++d) {
          std::set<int> nodes;
          for (int other = 0; other < data; ++other) {
            nodes.insert(layout.OtherOf(member, d, other));
          }
          EXPECT_EQ(layout.OtherOf(member, d, d), member);
          for (int p = 0; p < parity; ++p) {
            const int keeper = layout.KeeperOf(member, d, p);
            nodes.insert(keeper);
            EXPECT_EQ(layout.SourceOf(keeper, p, d), member);
            kept.insert({keeper, p});
          }
          EXPECT_EQ(nodes.size(), static_cast<size_t>(data + parity));
        }
      }
      EXPECT_EQ(kept.size(), static_cast<size_t>((data + parity) * parity));
    }
  }
}

TEST(ErasureGroupsTest, NodesAreDivided) {
  const auto sizes = [](const Erasure& erasure, const std::vector<int>& nodes) {
    std::vector<int> members;
    const auto groups =
        ErasureGroups(erasure, nodes, std::vector<int64_t>(nodes.size(), 1'000'000));
    EXPECT_TRUE(groups.ok()) << groups.status();
    std::set<int> files;
    for (const ErasureGroup& group : *groups) {
      std::set<int> on;
      for (const ErasureGroup::Member& member : group.members) {
        on.insert(nodes[member.keeper]);
        if (member.file >= 0) {
          EXPECT_TRUE(files.insert(member.file).second);
          EXPECT_EQ(nodes[member.file], nodes[member.keeper]);
        }
      }
      EXPECT_EQ(on.size(), group.members.size()) << "members on different nodes";
      EXPECT_EQ(group.layout.parity, erasure.parity);
      EXPECT_EQ(group.layout.data + group.layout.parity, group.layout.members());
      members.push_back(group.layout.members());
    }
    EXPECT_EQ(files.size(), nodes.size()) << "every file is protected";
    return members;
  };
  const auto one_each = [](int count) {
    std::vector<int> nodes;
    for (int node = 0; node < count; ++node) nodes.push_back(node);
    return nodes;
  };
  EXPECT_EQ(sizes({4, 1}, one_each(5)), (std::vector<int>{5}));
  EXPECT_EQ(sizes({4, 1}, one_each(10)), (std::vector<int>{5, 5}));
  EXPECT_EQ(sizes({4, 1}, one_each(12)), (std::vector<int>{6, 6}));
  EXPECT_EQ(sizes({4, 1}, one_each(9)), (std::vector<int>{9}));
  EXPECT_EQ(sizes({4, 1}, one_each(11)), (std::vector<int>{5, 6}));
  EXPECT_EQ(sizes({4, 1}, one_each(3)), (std::vector<int>{3})) << "fewer nodes than asked for";
  EXPECT_EQ(sizes({2, 1}, {0, 1, 2, 0, 1, 2}), (std::vector<int>{3, 3}));
  EXPECT_EQ(sizes({2, 1}, {0, 0, 1, 2}), (std::vector<int>{3, 3})) << "a node with more ranks";
  const auto few = ErasureGroups({2, 2}, {0, 1, 0, 1}, {1, 1, 1, 1});
  EXPECT_EQ(few.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(few.status().message().find("needs 3 nodes at least"), std::string::npos)
      << few.status();
}

TEST(ErasureGroupsTest, Words) {
  const auto erasure = ParseErasure("10+2");
  ASSERT_TRUE(erasure.ok());
  EXPECT_EQ(erasure->data, 10);
  EXPECT_EQ(erasure->parity, 2);
  for (const char* text : {"", "4", "4+", "+1", "4+0", "0+1", "-1+2", "4+1 ", "4+1+1", "254+2"}) {
    EXPECT_FALSE(ParseErasure(text).ok()) << text;
  }
}

// ---- clusters ----

class ErasureTest : public TierCluster {
 protected:
  std::vector<std::string> ParityFiles(int node, int64_t step, int generation = 1) {
    std::vector<std::string> found;
    for (const auto& entry :
         std::filesystem::directory_iterator(StepPath(node, step, generation))) {
      if (IsParityFileName(entry.path().filename())) found.push_back(entry.path());
    }
    return found;
  }
  static bool Mentions(const std::vector<std::string>& notes, const std::string& text) {
    return std::any_of(notes.begin(), notes.end(), [&](const std::string& note) {
      return note.find(text) != std::string::npos;
    });
  }
  // Moves a node's folder away, and back.
  void Hide(int node) { std::filesystem::rename(NodePath(node), Hidden(node)); }
  void ShowAgain(int node) {
    std::filesystem::remove_all(NodePath(node));
    std::filesystem::rename(Hidden(node), NodePath(node));
  }
  std::string Hidden(int node) { return scratch_ / absl::StrCat("hidden", node); }

  // Loses every set of nodes that the code bears, and those with one more. `holders` as in Job.
  void LoseEverySubset(const std::vector<int>& nodes, int parity, int64_t step, int holders = 0) {
    const int count = *std::max_element(nodes.begin(), nodes.end()) + 1;
    for (unsigned lost = 0; lost < (1u << count) - 1; ++lost) {
      if (std::popcount(lost) > parity + 1) continue;
      const auto gone = [&](int node) { return (lost >> node & 1) != 0; };
      for (int node = 0; node < count; ++node) {
        if (gone(node)) Hide(node);
      }
      std::vector<int> left;
      bool state_lost = false;
      for (size_t rank = 0; rank < nodes.size(); ++rank) {
        if (!gone(nodes[rank])) {
          left.push_back(nodes[rank]);
        } else if (holders == 0 || static_cast<int>(rank) < holders) {
          state_lost = true;
        }
      }
      // On the ranks that are left, and, on machines in the place of what is lost, on as many as
      // before; one more at the end.
      std::vector<int> more = nodes;
      more.push_back(left.front());
      for (const std::vector<int>& on : {left, more}) {
        const Outcome outcome = Restore(on);
        if (std::popcount(lost) <= parity) {
          EXPECT_TRUE(outcome.status.ok()) << lost << ": " << outcome.status;
          EXPECT_EQ(outcome.step, step);
          EXPECT_EQ(Mentions(outcome.notes, "was computed from parity"), state_lost);
        } else {
          EXPECT_EQ(outcome.status.code(), absl::StatusCode::kDataLoss)
              << lost << ": " << outcome.status;
          EXPECT_NE(outcome.status.message().find("may be lost, not more"), std::string::npos)
              << outcome.status;
        }
      }
      for (int node = 0; node < count; ++node) {
        if (gone(node)) ShowAgain(node);
      }
    }
  }
};

TEST_F(ErasureTest, EveryLossThatItBears) {
  scale_ = 60;
  const std::vector<std::pair<Erasure, std::vector<int>>> cases = {
      {{2, 1}, {0, 1, 2}},         {{1, 1}, {0, 1}},          {{2, 2}, {0, 1, 2, 3}},
      {{4, 1}, {0, 1, 2, 3, 4}},   {{3, 2}, {0, 1, 2, 3, 4}}, {{1, 2}, {2, 1, 0}},
      {{2, 1}, {0, 0, 1, 1, 2, 2}}};
  for (const auto& [erasure, nodes] : cases) {
    SCOPED_TRACE(absl::StrCat(erasure.data, "+", erasure.parity, " on ", nodes.size(), " ranks"));
    LoseAll();
    ExpectAllOk(Save({.nodes = nodes, .erasure = erasure, .steps = {1, 2}}), 2);
    LoseEverySubset(nodes, erasure.parity, 2);
  }
}

// Symbols of whole chunks, several cycles.
TEST_F(ErasureTest, LongFiles) {
  scale_ = 15000;
  ExpectAllOk(Save({.nodes = {0, 1, 2}, .erasure = {2, 1}, .steps = {1, 2}}), 2);
  const auto reader = ParityFileReader::Open(PosixFileSystem(), ParityFiles(1, 2).at(0));
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->description().layout.symbol_bytes, 4 << 20);
  EXPECT_GE((*reader)->description().layout.cycles(), 2);
  Hide(1);
  for (const std::vector<int>& on : {std::vector<int>{0, 2}, {0, 1, 2}, {2, 0, 2, 0, 0}}) {
    const Outcome outcome = Restore(on);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(outcome.step, 2);
  }
}

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Every byte of parity, from the files and the sentences of FORMAT.md alone.
TEST_F(ErasureTest, FilesAreWhatTheFormatSays) {
  scale_ = 150;
  for (const auto& [erasure, nodes] : std::vector<std::pair<Erasure, std::vector<int>>>{
           {{3, 2}, {0, 1, 2, 3, 4}}, {{2, 1}, {0, 1, 1, 2}}}) {
    LoseAll();
    ExpectAllOk(Save({.nodes = nodes, .erasure = erasure, .steps = {1}}), 1);
    std::map<std::string, std::string> rank_files = {{"", ""}};
    std::vector<std::string> paths;
    for (int node = 0; node <= *std::max_element(nodes.begin(), nodes.end()); ++node) {
      for (const auto& entry : std::filesystem::directory_iterator(StepPath(node, 1))) {
        const std::string name = entry.path().filename();
        if (name.rfind("rank-", 0) == 0) rank_files[name] = Content(entry.path());
        if (name.rfind("parity-", 0) == 0) paths.push_back(entry.path());
      }
    }
    EXPECT_GE(paths.size(), nodes.size());
    for (const std::string& path : paths) {
      SCOPED_TRACE(path);
      const std::string content = Content(path);
      ASSERT_GT(content.size(), 26u);
      const std::string end = content.substr(content.size() - 26);
      const size_t begin = std::stoull(end.substr(0, 16), nullptr, 16);
      const std::string text = content.substr(begin, content.size() - 26 - begin);
      EXPECT_EQ(end.substr(16), absl::StrCat(" ", Hex32(Crc32c(text.data(), text.size())), "\n"));
      const nlohmann::json json = nlohmann::json::parse(text);
      EXPECT_EQ(json.at("format"), "longspan-parity");
      EXPECT_EQ(json.at("version"), 1);
      EXPECT_EQ(json.at("run_id"), "tiers");
      EXPECT_EQ(json.at("step"), 1);
      char name[32];
      std::snprintf(name, sizeof(name), "parity-%05d-%02d", json.at("group").get<int>(),
                    json.at("member").get<int>());
      EXPECT_EQ(path.substr(path.rfind('/') + 1), name);
      const int64_t k = json.at("data"), m = json.at("parity"), member = json.at("member");
      const int64_t bytes = json.at("symbol_bytes");
      const nlohmann::json& files = json.at("files");
      const auto s = static_cast<int64_t>(files.size());
      ASSERT_EQ(s, k + m);
      int64_t longest = 0;
      for (const nlohmann::json& file : files) {
        EXPECT_EQ(file.at(1), rank_files.at(file.at(0)).size());
        longest = std::max<int64_t>(longest, file.at(1));
      }
      EXPECT_EQ(bytes, std::min<int64_t>(4194304, ((longest + k - 1) / k + 4095) / 4096 * 4096));
      size_t at = 0;
      for (int64_t cycle = 0; cycle * k * bytes < longest; ++cycle) {
        for (int64_t p = 0; p < m; ++p) {
          std::string sum(static_cast<size_t>(bytes), '\0');
          for (int64_t i = 0; i < s; ++i) {
            for (int64_t d = 0; d < k; ++d) {
              const int64_t stripe = (i - m - d + s) % s;
              if ((stripe + p) % s != member) continue;
              const int64_t divisor = (k + p) ^ d;
              uint8_t factor = 1;
              while (Times(factor, static_cast<uint8_t>(divisor)) != 1) ++factor;
              const std::string& file = rank_files.at(files.at(i).at(0));
              const auto from = static_cast<size_t>((cycle * k + d) * bytes);
              for (size_t b = 0; b < sum.size() && from + b < file.size(); ++b) {
                sum[b] =
                    static_cast<char>(sum[b] ^ Times(factor, static_cast<uint8_t>(file[from + b])));
              }
            }
          }
          ASSERT_TRUE(content.compare(at * sum.size(), sum.size(), sum) == 0)
              << "cycle " << cycle << ", parity " << p;
          EXPECT_EQ(json.at("crc32c").at(at), Crc32c(sum.data(), bytes));
          ++at;
        }
      }
      EXPECT_EQ(begin, at * static_cast<size_t>(bytes));
      EXPECT_EQ(json.at("crc32c").size(), at);
    }
  }
}

TEST_F(ErasureTest, RanksThatHoldLittleOrNothing) {
  scale_ = 900;
  const std::vector<int> nodes = {0, 1, 2, 3};
  for (const int holders : {1, 2, 3}) {
    SCOPED_TRACE(holders);
    LoseAll();
    ExpectAllOk(Save({.nodes = nodes, .erasure = {2, 2}, .steps = {1}, .holders = holders}), 1);
    const auto size = [&](int node) {
      return std::filesystem::file_size(absl::StrCat(StepPath(node, 1), "/rank-0000", node, ".h5"));
    };
    EXPECT_GT(size(0), 20 * size(3));
    LoseEverySubset(nodes, 2, 1, holders);
  }
}

TEST_F(ErasureTest, NodesWithDifferentNumbersOfRanks) {
  scale_ = 60;
  const std::vector<int> nodes = {0, 0, 0, 1, 2, 2};
  ExpectAllOk(Save({.nodes = nodes, .erasure = {2, 1}, .steps = {1, 2}}), 2);
  LoseEverySubset(nodes, 1, 2);
}

TEST_F(ErasureTest, CostsWhatItSays) {
  scale_ = 3000;
  for (const Erasure& erasure : {Erasure{4, 1}, Erasure{3, 2}}) {
    LoseAll();
    ExpectAllOk(Save({.nodes = {0, 1, 2, 3, 4}, .erasure = erasure, .steps = {1}}), 1);
    const auto size = [](const std::string& path) {
      return static_cast<int64_t>(std::filesystem::file_size(path));
    };
    int64_t files = 0, longest = 0, parity = 0;
    for (int node = 0; node < 5; ++node) {
      const int64_t file = size(absl::StrCat(StepPath(node, 1), "/rank-0000", node, ".h5"));
      files += file;
      longest = std::max(longest, file);
    }
    for (int node = 0; node < 5; ++node) {
      int64_t here = 0;
      for (const std::string& path : ParityFiles(node, 1)) here += size(path);
      // Not much more for what describes it, and the rounding of symbols.
      EXPECT_LT(here, longest * erasure.parity / erasure.data + erasure.parity * 4096 + 1024);
      parity += here;
    }
    TierOptions options;
    options.erasure = erasure;
    options.nodes = {0, 1, 2, 3, 4};
    EXPECT_NEAR(CopiesKept(options), 1 + static_cast<double>(parity) / static_cast<double>(files),
                0.05);
  }
}

TEST_F(ErasureTest, DamageIsToldFromSoundBytes) {
  scale_ = 300;
  const std::vector<int> nodes = {0, 1, 2, 3};
  ExpectAllOk(Save({.nodes = nodes, .erasure = {2, 2}, .steps = {1}}), 1);
  Hide(0);
  std::vector<int> left = {1, 2, 3};
  // A symbol of parity, the first of node 1: parity 0 of the stripe in which it keeps that. Its
  // data come from members 3 and 0 (FORMAT.md): what is lost needs it.
  FlipByte(ParityFiles(1, 1).at(0), 5);
  Outcome outcome = Restore(left);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(Mentions(outcome.notes, ParityFiles(1, 1).at(0))) << "the damage is named";
  EXPECT_TRUE(Mentions(outcome.notes, "are damaged"));
  // Two of four are what it bears.
  Hide(2);
  left = {1, 3};
  outcome = Restore(left);
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kDataLoss) << outcome.status;
  EXPECT_NE(outcome.status.message().find("is nowhere whole"), std::string::npos) << outcome.status;
  EXPECT_NE(outcome.status.message().find("parity-00000-01"), std::string::npos) << outcome.status;
  FlipByte(ParityFiles(1, 1).at(0), 5);
  EXPECT_TRUE(Restore(left).status.ok());
  // What describes the parity: as good as lost.
  FlipByte(ParityFiles(1, 1).at(0), -100);
  EXPECT_EQ(Restore(left).status.code(), absl::StatusCode::kDataLoss);
  ShowAgain(2);
  left = {1, 2, 3};
  EXPECT_TRUE(Restore(left).status.ok());
  // A file that others are computed from, and that is computed itself then.
  FlipByte(ParityFiles(1, 1).at(0), -100);
  FlipByte(StepPath(2, 1) + "/rank-00002.h5", 20000);
  outcome = Restore(left);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(Mentions(outcome.notes, "rank-00000.h5 was computed"));
  EXPECT_TRUE(Mentions(outcome.notes, "rank-00002.h5 was computed"));
}

// Each of the two is one of three in its stripe.
TEST_F(ErasureTest, DamageInTwoFilesIsNotALossOfBoth) {
  scale_ = 20000;
  ExpectAllOk(Save({.nodes = {0, 1, 2}, .erasure = {2, 1}, .steps = {1}}), 1);
  // Symbols 0 and 2, of cycles 0 and 1.
  FlipByte(StepPath(0, 1) + "/rank-00000.h5", (1 << 20) + 7);
  FlipByte(StepPath(1, 1) + "/rank-00001.h5", (9 << 20) + 7);
  const Outcome outcome = Restore({0, 1, 2});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(Mentions(outcome.notes, "rank-00000.h5 was computed"));
  EXPECT_TRUE(Mentions(outcome.notes, "rank-00001.h5 was computed"));
}

// Parity that does not fit its files, with checksums that do.
TEST_F(ErasureTest, WhatIsComputedIsCompared) {
  ExpectAllOk(Save({.nodes = {0, 1, 2}, .erasure = {2, 1}, .steps = {1}}), 1);
  Hide(0);
  const std::string path = ParityFiles(1, 1).at(0);
  {
    auto reader = ParityFileReader::Open(PosixFileSystem(), path);
    ASSERT_TRUE(reader.ok()) << reader.status();
    ParityDescription description = (*reader)->description();
    std::string symbol(static_cast<size_t>(description.layout.symbol_bytes), '\0');
    const auto symbols = static_cast<int64_t>(description.symbol_crc32c.size());
    description.symbol_crc32c.clear();
    std::filesystem::remove(path);
    auto writer = ParityFileWriter::Create(PosixFileSystem(), StepPath(1, 1), description);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (int64_t i = 0; i < symbols; ++i) ASSERT_TRUE((*writer)->Add(symbol.data()).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }
  const Outcome outcome = Restore({1, 2});
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kDataLoss) << outcome.status;
  EXPECT_NE(outcome.status.message().find("rank-00000.h5 is nowhere whole"), std::string::npos)
      << outcome.status;
  EXPECT_NE(outcome.status.message().find("what its parity gives is something else"),
            std::string::npos)
      << outcome.status;
}

TEST_F(ErasureTest, NothingIsComputedWhileThereIsAFile) {
  ExpectAllOk(Save({.nodes = {0, 1, 2}, .erasure = {2, 1}, .steps = {1, 2}, .shared_steps = {2}}),
              2);
  // Whatever parity says: it is not looked at.
  for (const int node : {0, 1, 2}) FlipByte(ParityFiles(node, 2).at(0), 5);
  Outcome outcome = Restore({0, 1, 2});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(outcome.notes.empty()) << outcome.notes[0];
  Hide(0);
  Hide(1);
  outcome = Restore({2, 2});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(outcome.notes.empty()) << outcome.notes[0];
  // A file of the checkpoint directory and the parity of nodes together.
  ShowAgain(1);
  FlipByte(ParityFiles(1, 2).at(0), 5);
  FlipByte(ParityFiles(2, 2).at(0), 5);
  std::filesystem::remove(Shared().directory + "/step-00000002.g0001/COMMIT");
  outcome = Restore({1, 2});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(Mentions(outcome.notes, "rank-00000.h5 was computed"));
}

TEST_F(ErasureTest, ParityGoesWithItsStep) {
  ExpectAllOk(Save({.nodes = {0, 1, 2}, .erasure = {2, 1}, .keep_last = 2, .steps = {1, 2, 3}}), 3);
  for (int node = 0; node < 3; ++node) {
    EXPECT_FALSE(std::filesystem::exists(StepPath(node, 1)));
    EXPECT_EQ(ParityFiles(node, 2).size(), 1u);
    EXPECT_EQ(ParityFiles(node, 3).size(), 1u);
    EXPECT_TRUE(RemoveTier(PosixFileSystem(), Tier(node)).ok());
    EXPECT_FALSE(std::filesystem::exists(Tier(node).directory));
  }
}

TEST_F(ErasureTest, IsVerified) {
  ExpectAllOk(Save({.nodes = {0, 1, 2}, .erasure = {2, 1}, .keep_last = 2, .steps = {1, 2}}), 2);
  const auto verify = [&](int node, int64_t step) {
    std::vector<std::string> elsewhere;
    auto info = ReadCheckpointInfo(PosixFileSystem(), StepPath(node, step), &elsewhere);
    return info.ok() ? VerifyCheckpoint(PosixFileSystem(), *info, &elsewhere) : info.status();
  };
  for (int node = 0; node < 3; ++node) EXPECT_TRUE(verify(node, 1).ok()) << verify(node, 1);
  const std::string parity = ParityFiles(1, 1).at(0);
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(parity));
  // In the first symbol, in the description, in the trailer.
  for (const int64_t at : {int64_t{5}, bytes - 100, bytes - 3}) {
    FlipByte(parity, at);
    const absl::Status status = verify(1, 1);
    EXPECT_TRUE(absl::IsDataLoss(status)) << at;
    EXPECT_NE(status.message().find(parity), absl::string_view::npos) << status;
    FlipByte(parity, at);
  }
  EXPECT_TRUE(verify(1, 1).ok());
  // Sound, but of another step.
  std::filesystem::copy_file(ParityFiles(1, 2).at(0), parity,
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(absl::IsDataLoss(verify(1, 1)));
  std::filesystem::remove(parity);
  EXPECT_TRUE(verify(1, 1).ok()) << "what is not here is not judged";
}

TEST_F(ErasureTest, IsListed) {
  std::filesystem::create_directories(Shared().directory);
  std::vector<TierDirectory> tiers;
  const absl::Status ran = RunRanks(1, [&](Transport& transport, Device&) -> absl::Status {
    auto claimed = ClaimTiers(PosixFileSystem(), Shared().directory, {{"memory", scratch_ / "shm"}},
                              transport);
    if (claimed.ok()) tiers = *claimed;
    return claimed.status();
  });
  ASSERT_TRUE(ran.ok()) << ran;
  ExpectAllOk(Save({.nodes = {0, 1, 2}, .erasure = {2, 1}, .steps = {1}}), 1);
  // This node is node 1.
  std::filesystem::create_directories(scratch_ / "shm");
  std::filesystem::rename(Tier(1).directory, tiers.at(0).directory);
  const auto listed = ListTiers(PosixFileSystem(), Shared().directory);
  ASSERT_TRUE(listed.ok()) << listed.status();
  ASSERT_EQ(listed->size(), 1u);
  EXPECT_EQ(listed->front().files_here, 1);
  EXPECT_EQ(listed->front().parity_here, 1);
}

TEST_F(ErasureTest, AFailureFailsTheSaveAndTheNextOneWorks) {
  scale_ = 15000;
  // Of parity, of a file in its first piece and in a later one, of what describes parity.
  const std::vector<std::pair<std::string, int>> refusals = {{"step-00000002.g0001/parity", 1},
                                                             {"step-00000002.g0001/rank-00001", 1},
                                                             {"step-00000002.g0001/rank-00001", 2},
                                                             {"step-00000002.g0001/parity", 6}};
  for (const auto& [part, nth] : refusals) {
    SCOPED_TRACE(absl::StrCat(part, ", ", nth));
    LoseAll();
    RefuseOnce watcher(part, nth);
    WatchedFiles files(PosixFileSystem(), watcher);
    const auto ends =
        Save({.nodes = {0, 1, 2}, .erasure = {2, 1}, .steps = {1, 2, 3}, .files = &files});
    EXPECT_TRUE(watcher.done());
    for (const auto& rank : ends) {
      ASSERT_EQ(rank.size(), 3u);
      EXPECT_TRUE(rank[0].ok()) << rank[0];
      EXPECT_NE(rank[1].message().find("memory checkpoint of step 2 not saved"), std::string::npos)
          << rank[1];
      EXPECT_NE(rank[1].message().find("no space left"), std::string::npos) << rank[1];
      EXPECT_TRUE(rank[2].ok()) << rank[2];
    }
    for (int node = 0; node < 3; ++node) EXPECT_FALSE(std::filesystem::exists(StepPath(node, 2)));
    Hide(2);
    const Outcome outcome = Restore({0, 1});
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(outcome.step, 3);
  }
}

TEST_F(ErasureTest, TooFewNodes) {
  const absl::Status ran = RunRanks(
      2,
      [&](Transport& transport, Device& device) -> absl::Status {
        TierOptions options;
        options.tier = Tier(0);
        options.erasure = {2, 2};
        options.nodes = {0, 1};
        auto tier =
            OpenTier(PosixFileSystem(), Shared(), 1, options, {}, {}, device.memory(), transport);
        EXPECT_EQ(tier.status().code(), absl::StatusCode::kInvalidArgument);
        EXPECT_NE(tier.status().message().find("needs 3 nodes at least"), std::string::npos)
            << tier.status();
        options.erasure = {1, 1};
        options.partner = true;
        tier =
            OpenTier(PosixFileSystem(), Shared(), 1, options, {}, {}, device.memory(), transport);
        EXPECT_EQ(tier.status().code(), absl::StatusCode::kInvalidArgument);
        EXPECT_NE(tier.status().message().find("choose one"), std::string::npos) << tier.status();
        return absl::OkStatus();
      },
      Patience());
  EXPECT_TRUE(ran.ok()) << ran;
}

}  // namespace
}  // namespace longspan
