#include "train_fixture.h"

#include <fstream>
#include <utility>

#include "corpus.h"
#include "nlohmann/json.hpp"
#include "parallel/transport/rank_threads.h"
#include "runtime/train/agreement.h"
#include "runtime/train/trainer.h"

namespace longspan {

TrainFixture::TrainFixture() : corpus_(directory_.path() + "/corpus.h5") {
  WriteCorpus(corpus_, {299, 3, 150, 1, 77, 41, 260, 12, 180, 95, 30, 220, 64, 8});
  config_.run.directory = directory_.path();
  config_.data.sources = {{corpus_, 1.0}};
  config_.model.width = 32;
  config_.model.heads = 4;
  config_.model.kv_heads = 2;
  config_.model.ffn = 80;
  config_.batch.tokens = 500;
  config_.batch.micro_batch_tokens = 300;
  config_.schedule.peak = 3e-3;
}

absl::Status TrainFixture::TrainOn(int ranks, const std::string& name, const std::string& resume,
                                   int64_t stop_after, const std::atomic<bool>* stop) {
  config_.run.name = name;
  TrainRequest request;
  request.config = config_;
  request.entries = {
      {"batch.tokens", std::to_string(config_.batch.tokens), "test", /*fixed=*/true},
      {"run.steps", std::to_string(config_.run.steps), "test", /*fixed=*/false},
      {"schedule.peak", std::to_string(config_.schedule.peak), "test", /*fixed=*/false}};
  request.resume = resume;
  request.stop_after = stop_after;
  request.stop_requested = stop;
  request.trace = trace_;
  absl::Status agreed;
  RankThreadOptions options;
  options.timeout = absl::Seconds(100);
  options.open_device = open_device_;
  const absl::Status status = RunRanks(
      ranks,
      [&](Transport& transport, Device& device) {
        const std::unique_ptr<Transport> wrapped = wrap_ ? wrap_(transport, device) : nullptr;
        absl::Status mine = Train(request, wrap_ ? *wrapped : transport, device);
        if (!IsAgreed(mine)) return mine;
        if (transport.rank() == 0) agreed = mine;
        return absl::OkStatus();
      },
      options);
  return agreed.ok() ? status : agreed;
}

std::map<int64_t, double> TrainFixture::Losses(const std::string& name, const char* key) const {
  std::ifstream file(Folder(name) + "/metrics.jsonl");
  std::map<int64_t, std::pair<int64_t, double>> found;
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json object = nlohmann::json::parse(line);
    if (!object.contains(key)) continue;
    auto& [attempt, loss] = found[object["step"]];
    if (object["attempt"] >= attempt) {
      attempt = object["attempt"];
      loss = object[key];
    }
  }
  std::map<int64_t, double> losses;
  for (const auto& [step, value] : found) losses[step] = value.second;
  return losses;
}

std::string TrainFixture::StateHash(const std::string& name) const {
  std::ifstream latest(Folder(name) + "/checkpoints/latest");
  std::string step;
  std::getline(latest, step);
  std::ifstream manifest(Folder(name) + "/checkpoints/" + step + "/manifest.json");
  return nlohmann::json::parse(manifest)["state_hash"].dump();
}

}  // namespace longspan
