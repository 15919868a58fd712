#include "launch/config.h"

#include <cstdio>
#include <fstream>

#include "gtest/gtest.h"

namespace longspan {
namespace {

std::string ErrorOf(const std::string& text, const std::vector<std::string>& sets = {}) {
  const absl::StatusOr<LoadedConfig> config = ParseConfig(text, "my.toml", sets);
  return config.ok() ? "" : std::string(config.status().message());
}

TEST(ConfigTest, DefaultsReadBackAsThemselves) {
  const absl::StatusOr<LoadedConfig> config = ParseConfig(DefaultConfigToml(), "defaults", {});
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  const absl::StatusOr<LoadedConfig> empty = ParseConfig("", "", {});
  ASSERT_TRUE(empty.ok());
  ASSERT_EQ(config->entries.size(), empty->entries.size());
  for (size_t i = 0; i < empty->entries.size(); ++i) {
    EXPECT_EQ(config->entries[i].value, empty->entries[i].value) << empty->entries[i].key;
    EXPECT_EQ(empty->entries[i].origin, "default");
  }
}

TEST(ConfigTest, ValuesAndTheirOrigin) {
  const absl::StatusOr<LoadedConfig> config = ParseConfig(
      "[run]\nname = \"a \\\"b\\\"\"\nsteps = 7\n[data]\nsources = [{ path = \"x.h5\", weight = 2 "
      "}]\n"
      "validation = \"v.h5\"\n[checkpoint]\ninterval = \"30s\"\n",
      "my.toml",
      {"run.steps=9", "model.rope_base=5e5", "run.directory=/tmp/r", "run.device=cpu",
       "optimizer.betas=[0.8, 0.9]"});
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->values.run.name, "a \"b\"");
  EXPECT_EQ(config->values.run.steps, 9);
  EXPECT_EQ(config->values.run.directory, "/tmp/r");
  EXPECT_EQ(config->values.model.rope_base, 5e5);
  EXPECT_EQ(config->values.data.sources.at(0).weight, 2.0);
  EXPECT_EQ(config->values.data.validation.path, "v.h5");
  EXPECT_EQ(config->values.checkpoint.interval.seconds, 30.0);
  EXPECT_EQ(config->values.checkpoint.interval.steps, 0);
  EXPECT_EQ(config->values.optimizer.betas[0], 0.8);
  for (const ConfigEntry& entry : config->entries) {
    if (entry.key == "run.steps") {
      EXPECT_EQ(entry.origin, "--set run.steps");
    }
    if (entry.key == "run.name") {
      EXPECT_EQ(entry.origin, "my.toml:2");
    }
    if (entry.key == "batch.tokens") {
      EXPECT_TRUE(entry.fixed);
    }
  }
  // What is written to the run's folder reads back to the same values.
  const absl::StatusOr<LoadedConfig> again = ParseConfig(config->ToToml(), "again", {});
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(again->ToToml().size() > 0, true);
  for (size_t i = 0; i < config->entries.size(); ++i)
    EXPECT_EQ(again->entries[i].value, config->entries[i].value);
}

TEST(ConfigTest, ABareWordIsTextEvenIfItLooksLikeANumber) {
  for (const char* word : {"first", "nan", "12", "true", "a b"}) {
    const absl::StatusOr<LoadedConfig> config =
        ParseConfig("", "", {std::string("run.name=") + word});
    ASSERT_TRUE(config.ok()) << config.status().ToString();
    EXPECT_EQ(config->values.run.name, word);
  }
}

TEST(ConfigTest, UnknownKeysNameLineAndNearestKey) {
  EXPECT_EQ(ErrorOf("[run]\nname = \"a\"\nstep = 3\n"),
            "my.toml:3: unknown key \"run.step\"; the nearest known key is \"run.steps\" (longspan "
            "config defaults lists "
            "all)");
  EXPECT_NE(ErrorOf("[model]\nmax_length = 4\n").find("\"data.max_length\""), std::string::npos);
  EXPECT_NE(ErrorOf("steps = 3\n").find("\"run.steps\""), std::string::npos);
  EXPECT_NE(ErrorOf("", {"optimiser.clip=1"}).find("\"optimizer.clip\""), std::string::npos);
}

TEST(ConfigTest, WrongValuesSayWhatIsNeeded) {
  EXPECT_NE(ErrorOf("[run]\nsteps = \"many\"\n")
                .find("my.toml:2: run.steps = 'many': needs a whole number"),
            std::string::npos)
      << ErrorOf("[run]\nsteps = \"many\"\n");
  EXPECT_NE(ErrorOf("[run]\nsteps = 0\n").find("at least 1"), std::string::npos);
  EXPECT_NE(ErrorOf("[run]\nnccl_timeout = 0\n").find("at least 1"), std::string::npos);
  EXPECT_NE(ErrorOf("[batch]\nmicro_batch_tokens = 4097\n").find("even"), std::string::npos);
  EXPECT_NE(ErrorOf("[model]\nfamily = \"bert\"\n").find("llama, gpt2"), std::string::npos);
  EXPECT_NE(ErrorOf("[data]\nsources = [{ file = \"x\" }]\n").find("entries are path and weight"),
            std::string::npos);
  EXPECT_NE(ErrorOf("[data]\nvalidation = 1.5\n").find("share from 0 to 1"), std::string::npos);
  EXPECT_NE(ErrorOf("[checkpoint]\ninterval = \"soon\"\n").find("\"30s\""), std::string::npos);
  EXPECT_NE(ErrorOf("[schedule]\npeak = nan\n").find("needs a number"), std::string::npos);
  EXPECT_NE(ErrorOf("[run\n").find("my.toml:1"), std::string::npos);
  EXPECT_NE(ErrorOf("", {"run.steps"}).find("section.key=value"), std::string::npos);
  EXPECT_EQ(LoadConfig("/no/such.toml", {}).status().code(), absl::StatusCode::kNotFound);
}

TEST(ConfigTest, HeadsAreSplitByItselfOrByANumber) {
  const auto limit = [](const std::vector<std::string>& sets) {
    const absl::StatusOr<LoadedConfig> config = ParseConfig("", "", sets);
    EXPECT_TRUE(config.ok()) << config.status().ToString();
    const absl::StatusOr<LoadedConfig> again = ParseConfig(config->ToToml(), "again", {});
    EXPECT_TRUE(again.ok()) << again.status().ToString();
    EXPECT_EQ(again->values.attention.head_parallel.ranks,
              config->values.attention.head_parallel.ranks);
    return config->values.attention.head_parallel;
  };
  EXPECT_TRUE(limit({}).automatic());
  EXPECT_TRUE(limit({"attention.head_parallel=auto"}).automatic());
  EXPECT_EQ(limit({"attention.head_parallel=4"}).ranks, 4);
  EXPECT_EQ(limit({"attention.head_parallel=1"}).ranks, 1);
  for (const char* bad : {"0", "-2", "\"all\"", "1.5", "true", "99999999999"}) {
    const std::string error = ErrorOf(std::string("[attention]\nhead_parallel = ") + bad + "\n");
    EXPECT_NE(error.find("my.toml:2: attention.head_parallel = "), std::string::npos) << error;
    EXPECT_NE(error.find("needs \"auto\", or the most ranks"), std::string::npos) << error;
  }
}

TEST(ConfigTest, GradientsTravelAsF32OrBf16) {
  EXPECT_EQ(ParseConfig("", "", {})->values.optimizer.wire, "f32");
  const absl::StatusOr<LoadedConfig> config = ParseConfig("", "", {"optimizer.wire=bf16"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->values.optimizer.wire, "bf16");
  for (const ConfigEntry& entry : config->entries) {
    if (entry.key == "optimizer.wire") {
      EXPECT_FALSE(entry.fixed) << "a resume may change it";
    }
  }
  const std::string error = ErrorOf("[optimizer]\nwire = \"fp8\"\n");
  EXPECT_NE(error.find("my.toml:2: optimizer.wire"), std::string::npos) << error;
  EXPECT_NE(error.find("f32, bf16"), std::string::npos) << error;
}

TEST(ConfigTest, Parity) {
  const absl::StatusOr<LoadedConfig> config =
      ParseConfig("", "", {"checkpoint.memory_erasure=4+1"});
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->values.checkpoint.memory.erasure, "4+1");
  EXPECT_EQ(config->values.checkpoint.local.erasure, "");
  for (const std::string key : {"memory_erasure", "local_erasure"}) {
    const std::string error = ErrorOf("[checkpoint]\n" + key + " = \"4-1\"\n");
    EXPECT_NE(error.find("checkpoint." + key + " = '4-1': \"4+1\" is wanted"), std::string::npos)
        << error;
    EXPECT_EQ(error.find("4-1"), error.rfind("4-1")) << "said twice: " << error;
  }
}

TEST(ConfigTest, ScheduleKeys) {
  const absl::StatusOr<LoadedConfig> config =
      ParseConfig("", "",
                  {"schedule.kind=rex", "schedule.sampling=5%", "schedule.milestones=[0.1, 0.2]",
                   "schedule.cooldown_shape=sqrt"});
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->values.schedule.kind, "rex");
  EXPECT_EQ(config->values.schedule.sampling.share, 0.05);
  EXPECT_EQ(config->values.schedule.profile.milestones, std::vector<double>({0.1, 0.2}));
  const absl::StatusOr<LoadedConfig> again = ParseConfig(config->ToToml(), "again", {});
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(again->values.schedule.sampling, config->values.schedule.sampling);
  EXPECT_EQ(ParseConfig("", "", {"schedule.sampling=[0.5, 0.75]"})
                ->values.schedule.sampling.points.size(),
            2u);
  EXPECT_EQ(ParseConfig("", "", {"schedule.sampling=7"})->values.schedule.sampling.every, 7);

  const std::string unknown = ErrorOf("", {"schedule.kind=cosin"});
  EXPECT_NE(unknown.find("constant, linear, rex, cosine, wsd"), std::string::npos) << unknown;
  EXPECT_NE(unknown.find("the nearest is \"cosine\""), std::string::npos) << unknown;
  EXPECT_EQ(ErrorOf("", {"schedule.kind=zzz"}).find("nearest"), std::string::npos);
  EXPECT_NE(ErrorOf("", {"schedule.sampling=often"}).find("\"5%\" of the steps"),
            std::string::npos);
  EXPECT_NE(ErrorOf("", {"schedule.sampling=0"}).find("at least 1"), std::string::npos);
  EXPECT_NE(ErrorOf("", {"schedule.rex_b=1.0"}).find("schedule.rex_b"), std::string::npos);
}

}  // namespace
}  // namespace longspan
