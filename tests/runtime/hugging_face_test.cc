// Models to and from Hugging Face's files: what is written reads back bit for bit, single or
// sharded; what does not fit is refused by name.
#include "runtime/model/hugging_face.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/model/safetensors.h"
#include "temporary_directory.h"

namespace longspan {
namespace {

ModelConfig SmallModel(ModelFamily family, bool tied) {
  ModelConfig config;
  config.family = family;
  config.layers = 2;
  config.width = 16;
  config.heads = 4;
  config.kv_heads = family == ModelFamily::kLlama ? 2 : 4;
  config.ffn = 24;
  config.vocab = 19;
  config.rope_base = 5000;
  config.tie_embeddings = tied;
  config.positions = family == ModelFamily::kGpt2 ? 32 : 0;
  return config;
}

struct Model {
  explicit Model(const ModelConfig& model)
      : config(model), layout(ParameterSpecs(model), 1), arena(layout.arena_elements(), 0.0f) {}
  TensorView view() { return TensorView::Of(arena.data(), {layout.arena_elements()}); }
  void Fill() {
    for (size_t t = 0; t < layout.specs().size(); ++t) {
      for (int64_t i = 0; i < layout.specs()[t].elements(); ++i) {
        arena[layout.offset(static_cast<int64_t>(t)) + i] =
            std::sin(static_cast<float>(i + 1)) / static_cast<float>(t + 3);
      }
    }
  }
  absl::Status Write(const std::string& directory, int64_t shard_bytes) {
    std::filesystem::create_directories(directory);
    std::ofstream(directory + "/config.json") << HuggingFaceConfig(config, 64);
    std::vector<SafetensorsSource> tensors;
    for (size_t t = 0; t < layout.specs().size(); ++t) {
      const ParameterSpec& spec = layout.specs()[t];
      const float* from = arena.data() + layout.offset(static_cast<int64_t>(t));
      tensors.push_back({spec.name, spec.shape, [from, spec](float* values) {
                           std::memcpy(values, from, spec.elements() * sizeof(float));
                           return absl::OkStatus();
                         }});
    }
    return WriteSafetensors(directory, tensors, shard_bytes);
  }
  absl::Status Read(const std::string& directory) {
    return ReadHuggingFaceWeights(directory, config, layout, view());
  }
  ModelConfig config;
  ParameterLayout layout;
  std::vector<float> arena;
};

class HuggingFaceTest : public testing::Test {
 protected:
  TemporaryDirectory directory_;
};

TEST_F(HuggingFaceTest, BothFamiliesComeBackBitForBit) {
  int number = 0;
  for (const auto& [family, tied] :
       {std::pair(ModelFamily::kLlama, false), std::pair(ModelFamily::kLlama, true),
        std::pair(ModelFamily::kGpt2, false)}) {
    for (const int64_t shard_bytes : {int64_t{1} << 30, int64_t{3000}, int64_t{1}}) {
      const std::string directory = directory_.path() + "/model" + std::to_string(number++);
      Model model(SmallModel(family, tied));
      model.Fill();
      const absl::Status written = model.Write(directory, shard_bytes);
      ASSERT_TRUE(written.ok()) << written;
      EXPECT_EQ(std::filesystem::exists(directory + "/model.safetensors"), shard_bytes > 3000);
      absl::StatusOr<ModelConfig> config = ReadHuggingFaceConfig(directory);
      ASSERT_TRUE(config.ok()) << config.status();
      EXPECT_EQ(config->family, family);
      EXPECT_EQ(config->tied(), model.config.tied());
      EXPECT_EQ(config->norm_eps, model.config.norm_eps);
      if (family == ModelFamily::kLlama) {
        EXPECT_EQ(config->rope_base, 5000);
      }
      Model back(*config);
      const absl::Status read = back.Read(directory);
      ASSERT_TRUE(read.ok()) << read;
      EXPECT_TRUE(back.arena == model.arena);
      EXPECT_EQ(model.Write(directory, shard_bytes).code(), absl::StatusCode::kAlreadyExists);
    }
  }
}

TEST_F(HuggingFaceTest, AWindowIsThatOfMistral) {
  ModelConfig config = SmallModel(ModelFamily::kLlama, /*tied=*/false);
  config.window = 77;
  const std::string text = HuggingFaceConfig(config, 1024);
  EXPECT_NE(text.find("\"mistral\""), std::string::npos) << text;
  const std::string directory = ::testing::TempDir() + "/window_of_mistral";
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/config.json") << text;
  const absl::StatusOr<ModelConfig> read = ReadHuggingFaceConfig(directory);
  std::filesystem::remove_all(directory);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->family, ModelFamily::kLlama);
  EXPECT_EQ(read->window, 77);
}

TEST_F(HuggingFaceTest, HalfPrecisionIsRead) {
  const std::string path = directory_.path() + "/model.safetensors";
  std::string header =
      R"({"b":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]},"h":{"dtype":"F16","shape":[2,3],"data_offsets":[6,18]},"i":{"dtype":"I32","shape":[1],"data_offsets":[18,22]}})";
  const uint64_t bytes = header.size();
  const uint16_t values[] = {0x3f80, 0xc049, 0x0001,                          // bf16
                             0x3c00, 0xc000, 0x0001, 0x7c00, 0x8000, 0x3555,  // f16
                             7,      0};
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&bytes), 8);
  file << header;
  file.write(reinterpret_cast<const char*>(values), sizeof(values));
  file.close();
  auto entries = ListSafetensors(directory_.path());
  ASSERT_TRUE(entries.ok()) << entries.status();
  float b[3], h[6], i[1];
  ASSERT_TRUE(ReadSafetensor(entries->at("b"), b).ok());
  EXPECT_EQ(b[0], 1);
  EXPECT_EQ(b[1], -3.140625f);
  EXPECT_EQ(b[2], std::ldexp(1.0f, -133));
  ASSERT_TRUE(ReadSafetensor(entries->at("h"), h).ok());
  EXPECT_EQ(h[0], 1);
  EXPECT_EQ(h[1], -2);
  EXPECT_EQ(h[2], std::ldexp(1.0f, -24));
  EXPECT_TRUE(std::isinf(h[3]));
  EXPECT_TRUE(h[4] == 0 && std::signbit(h[4]));
  EXPECT_NEAR(h[5], 1.0f / 3, 1e-3);
  EXPECT_EQ(ReadSafetensor(entries->at("i"), i).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(HuggingFaceTest, WhatDoesNotFitIsRefusedByName) {
  Model model(SmallModel(ModelFamily::kLlama, false));
  model.Fill();
  const std::string directory = directory_.path() + "/model";
  ASSERT_TRUE(model.Write(directory, 1 << 30).ok());
  const auto refusal = [&](const ModelConfig& config) {
    Model other(config);
    const absl::Status status = other.Read(directory);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  ModelConfig config = model.config;
  config.layers = 3;
  EXPECT_NE(refusal(config).find("model.layers = 2 (here 3)"), std::string::npos);
  config = model.config;
  config.ffn = 32;
  EXPECT_NE(refusal(config).find(".mlp.down_proj.weight is (16, 24), but (16, 32)"),
            std::string::npos)
      << refusal(config);
  config = SmallModel(ModelFamily::kGpt2, false);
  EXPECT_NE(refusal(config).find("model.family"), std::string::npos);

  const auto with_config = [&](const std::string& json) {
    std::ofstream(directory + "/config.json") << json;
    return std::string(ReadHuggingFaceConfig(directory).status().message());
  };
  EXPECT_NE(with_config(R"({"model_type": "bert"})").find("bert"), std::string::npos);
  EXPECT_NE(with_config("{").find("does not read"), std::string::npos);
  std::string biased = HuggingFaceConfig(model.config, 64);
  biased.replace(biased.find("\"attention_bias\": false"), 23, "\"attention_bias\": true");
  EXPECT_NE(with_config(biased).find("attention_bias"), std::string::npos);

  std::ofstream(directory + "/model.safetensors", std::ios::binary | std::ios::trunc)
      << "garbage!x";
  EXPECT_EQ(ListSafetensors(directory).status().code(), absl::StatusCode::kDataLoss);
  std::filesystem::remove(directory + "/model.safetensors");
  EXPECT_EQ(ListSafetensors(directory).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace longspan
