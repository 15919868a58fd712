// Train() as a user sees it: losses over ranks, bit-identical resume, fewer ranks, refusals, stop
// requests.
#include "runtime/train/trainer.h"

#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../faults/faulty_transport.h"
#include "../parallel/forwarding_transport.h"
#include "corpus.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "train_fixture.h"

namespace longspan {
namespace {

class TrainTest : public TrainFixture {
 protected:
  TrainTest() {
    config_.run.steps = 30;
    config_.data.validation.share = 0.2;
    config_.model.layers = 2;
    config_.checkpoint.interval.steps = 10;
    config_.metrics.evaluate_every = 10;
  }

  // State hashes of all checkpoints, by step.
  std::map<int64_t, std::string> StateHashes(const std::string& name) const {
    std::map<int64_t, std::string> hashes;
    for (const auto& entry : std::filesystem::directory_iterator(Folder(name) + "/checkpoints")) {
      std::ifstream manifest(entry.path() / "manifest.json");
      if (!manifest || !std::filesystem::exists(entry.path() / "COMMIT")) continue;
      const nlohmann::json object = nlohmann::json::parse(manifest);
      hashes[object["step"]] = object["state_hash"].dump();
    }
    return hashes;
  }

  std::string LogOf(const std::string& name) const {
    std::ifstream log(Folder(name) + "/log.txt");
    return {std::istreambuf_iterator<char>(log), std::istreambuf_iterator<char>()};
  }
};

TEST_F(TrainTest, ThirtyStepsAgreeOnOneToFourRanks) {
  ASSERT_TRUE(TrainOn(1, "one").ok());
  const std::map<int64_t, double> alone = Losses("one");
  ASSERT_EQ(alone.size(), 30u);
  EXPECT_LT(alone.at(30), 0.8 * alone.at(1)) << "it learns";
  EXPECT_EQ(Losses("one", "validation_loss").size(), 3u);
  const std::map<int, int64_t> capacities = {{2, 160}, {3, 128}, {4, 100}};
  for (const auto& [ranks, capacity] : capacities) {
    config_.batch.micro_batch_tokens = capacity;
    const std::string name = "ranks" + std::to_string(ranks);
    const absl::Status status = TrainOn(ranks, name);
    ASSERT_TRUE(status.ok()) << status.ToString();
    const std::map<int64_t, double> losses = Losses(name);
    ASSERT_EQ(losses.size(), 30u);
    for (const auto& [step, loss] : alone)
      EXPECT_NEAR(losses.at(step), loss, 1e-4 * loss) << ranks << " ranks, step " << step;
    EXPECT_NEAR(Losses(name, "validation_loss").at(30), Losses("one", "validation_loss").at(30),
                1e-3);
  }
}

TEST_F(TrainTest, AWindowAndABf16WireAgreeOnAnyRanks) {
  config_.run.steps = 10;
  config_.schedule.warmup = 0;
  ASSERT_TRUE(TrainOn(1, "all").ok());
  config_.attention.window = 24;
  ASSERT_TRUE(TrainOn(1, "window").ok());
  const std::map<int64_t, double> all = Losses("all"), alone = Losses("window");
  EXPECT_GT(std::abs(alone.at(10) - all.at(10)), 1e-5) << "the window hides something";
  for (const auto& [ranks, capacity] : std::map<int, int64_t>{{2, 160}, {4, 100}}) {
    config_.batch.micro_batch_tokens = capacity;
    const std::string name = "window" + std::to_string(ranks);
    const absl::Status status = TrainOn(ranks, name);
    ASSERT_TRUE(status.ok()) << status.ToString();
    const std::map<int64_t, double> losses = Losses(name);
    ASSERT_EQ(losses.size(), 10u);
    for (const auto& [step, loss] : alone)
      EXPECT_NEAR(losses.at(step), loss, 1e-4 * loss) << ranks << " ranks, step " << step;
  }
  config_.attention.window = 0;
  config_.attention.wire = "bf16";
  ASSERT_TRUE(TrainOn(4, "bf16").ok());
  for (const auto& [step, loss] : Losses("bf16"))
    EXPECT_NEAR(loss, all.at(step), 5e-3 * loss) << "bf16, step " << step;
  EXPECT_NE(Losses("bf16").at(10), all.at(10));
}

// Counts what goes into the sums of gradients.
class CountingTransport : public ForwardingTransport {
 public:
  CountingTransport(Transport& inner, std::atomic<int64_t>& bytes)
      : ForwardingTransport(inner), bytes_(bytes) {}

  void ReduceScatterSum(TensorView input, TensorView output, Stream& stream) override {
    bytes_ += input.bytes();
    inner().ReduceScatterSum(input, output, stream);
  }

 private:
  std::atomic<int64_t>& bytes_;
};

TEST_F(TrainTest, Bf16GradientsTravelInHalfTheBytesAndTrainAlike) {
  config_.run.steps = 10;
  config_.schedule.warmup = 0;
  std::atomic<int64_t> bytes = 0;
  wrap_ = [&](Transport& transport, Device&) {
    return std::make_unique<CountingTransport>(transport, bytes);
  };
  for (const auto& [ranks, capacity] : std::map<int, int64_t>{{1, 300}, {2, 160}, {3, 128}}) {
    const std::string of = " of " + std::to_string(ranks);
    config_.batch.micro_batch_tokens = capacity;
    config_.optimizer.wire = "f32";
    ASSERT_TRUE(TrainOn(ranks, "f32" + of).ok());
    const int64_t wide = bytes.exchange(0);
    config_.optimizer.wire = "bf16";
    ASSERT_TRUE(TrainOn(ranks, "bf16" + of).ok());
    const int64_t narrow = bytes.exchange(0);
    const std::map<int64_t, double> exact = Losses("f32" + of), losses = Losses("bf16" + of);
    ASSERT_EQ(losses.size(), 10u);
    if (ranks == 1) {
      EXPECT_EQ(losses, exact) << "nothing travels, nothing is rounded";
      continue;
    }
    EXPECT_EQ(2 * narrow, wide);
    EXPECT_NE(losses.at(10), exact.at(10));
    for (const auto& [step, loss] : exact)
      EXPECT_NEAR(losses.at(step), loss, 5e-3 * loss) << ranks << " ranks, step " << step;
    // The norm is taken of what was summed, in FP32.
    const std::map<int64_t, double> norms = Losses("f32" + of, "gradient_norm");
    for (const auto& [step, norm] : Losses("bf16" + of, "gradient_norm"))
      EXPECT_NEAR(norm, norms.at(step), 2e-2 * norm) << ranks << " ranks, step " << step;
  }
}

TEST_F(TrainTest, AResumeMayChangeWhatGradientsTravelAs) {
  config_.run.steps = 6;
  config_.batch.micro_batch_tokens = 160;
  config_.checkpoint.interval.steps = 3;
  config_.optimizer.wire = "bf16";
  ASSERT_TRUE(TrainOn(2, "whole").ok());
  ASSERT_TRUE(TrainOn(2, "parts", "", /*stop_after=*/3).ok());
  ASSERT_TRUE(TrainOn(2, "parts", "auto").ok());
  EXPECT_EQ(Losses("parts"), Losses("whole"));
  EXPECT_EQ(StateHashes("parts").at(6), StateHashes("whole").at(6));
  // The checkpoint has nothing of it.
  ASSERT_TRUE(TrainOn(2, "changed", "", /*stop_after=*/3).ok());
  config_.optimizer.wire = "f32";
  ASSERT_TRUE(TrainOn(2, "changed", "auto").ok());
  for (const auto& [step, loss] : Losses("whole"))
    EXPECT_NEAR(Losses("changed").at(step), loss, 5e-3 * loss) << "step " << step;
}

TEST_F(TrainTest, SplitHeadsAgreeWithARingAlone) {
  config_.run.steps = 10;
  config_.schedule.warmup = 0;
  config_.attention.head_parallel = {1};
  ASSERT_TRUE(TrainOn(1, "one").ok());
  const std::map<int64_t, double> one = Losses("one");
  config_.batch.micro_batch_tokens = 100;  // groups of two, three and four
  ASSERT_TRUE(TrainOn(4, "ring").ok());
  config_.attention.head_parallel = {2};
  ASSERT_TRUE(TrainOn(4, "heads").ok());
  // Nodes of two ranks, as many as split heads.
  config_.planner.ranks_per_node = 2;
  ASSERT_TRUE(TrainOn(4, "nodes").ok());
  EXPECT_NE(Losses("heads"), Losses("ring")) << "heads were split somewhere";
  for (const char* name : {"ring", "heads", "nodes"}) {
    const std::map<int64_t, double> losses = Losses(name);
    ASSERT_EQ(losses.size(), 10u) << name;
    for (const auto& [step, loss] : one)
      EXPECT_NEAR(losses.at(step), loss, 1e-4 * loss) << name << ", step " << step;
  }
}

TEST_F(TrainTest, RefusesToSplitHeadsThatCannotBe) {
  config_.run.steps = 1;
  config_.attention.head_parallel = {2};
  config_.attention.window = 24;
  absl::Status status = TrainOn(2, "window");
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_NE(status.message().find("attention.head_parallel = 2, but attention.window = 24"),
            std::string::npos)
      << status;
  config_.attention.window = 0;
  config_.model.kv_heads = 1;
  status = TrainOn(2, "single");
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_NE(status.message().find(
                "attention.head_parallel = 2, but model.kv_heads = 1 has no divisor from 2 to 2"),
            std::string::npos)
      << status;
  EXPECT_NE(status.message().find("set attention.head_parallel to 1, \"auto\""), std::string::npos)
      << status;
  config_.attention.head_parallel = {};
  EXPECT_TRUE(TrainOn(2, "auto").ok());
}

TEST_F(TrainTest, ResumeIsBitIdentical) {
  config_.batch.micro_batch_tokens = 160;
  config_.run.steps = 14;
  ASSERT_TRUE(TrainOn(2, "whole").ok());
  ASSERT_TRUE(TrainOn(2, "parts", "", /*stop_after=*/5).ok());
  EXPECT_EQ(Losses("parts").size(), 5u);
  ASSERT_TRUE(TrainOn(2, "parts", "auto", /*stop_after=*/4).ok());
  ASSERT_TRUE(TrainOn(2, "parts", "auto").ok());
  EXPECT_EQ(Losses("parts"), Losses("whole"));
  EXPECT_EQ(StateHash("parts"), StateHash("whole"));
}

TEST_F(TrainTest, ARefitCostModelChangesPlansAtOneStepAndSurvivesAResume) {
  config_.run.steps = 24;
  config_.batch.micro_batch_tokens = 160;
  ASSERT_TRUE(TrainOn(2, "fixed").ok());
  config_.planner.cost = "refit";
  ASSERT_TRUE(TrainOn(2, "refit", "", /*stop_after=*/10).ok());
  // Announced after step 8, stored before it is in effect.
  EXPECT_EQ(Losses("refit", "cost_version").at(10), 0);
  ASSERT_TRUE(TrainOn(2, "refit", "auto").ok());
  const std::map<int64_t, double> versions = Losses("refit", "cost_version");
  for (int64_t step = 11; step <= 15; ++step) EXPECT_EQ(versions.at(step), step < 14 ? 0 : 1);
  // The nominal model is far from this machine: the first fit is adopted.
  EXPECT_GE(versions.at(24), 1);
  // Who computes what changes no loss.
  for (const auto& [step, loss] : Losses("fixed"))
    EXPECT_NEAR(Losses("refit").at(step), loss, 1e-4 * loss) << step;
}

TEST_F(TrainTest, EveryStepSavedInTheBackgroundIsTheStateOfThatStep) {
  config_.batch.micro_batch_tokens = 160;
  config_.run.steps = 12;
  config_.checkpoint.interval.steps = 1;
  config_.checkpoint.keep_last = 100;
  config_.checkpoint.mode = "synchronous";
  ASSERT_TRUE(TrainOn(2, "synchronous").ok());
  const std::map<int64_t, std::string> hashes = StateHashes("synchronous");
  ASSERT_EQ(hashes.size(), 12u);

  config_.checkpoint.mode = "lazy";
  ASSERT_TRUE(TrainOn(2, "lazy").ok());
  EXPECT_EQ(StateHashes("lazy"), hashes);
  EXPECT_EQ(Losses("lazy"), Losses("synchronous"));
  const std::map<int64_t, double> blocked = Losses("lazy", "blocked_seconds");
  EXPECT_EQ(blocked.size(), 12u) << "one line a save";
  for (const char* key : {"copy_bytes_per_second", "write_bytes_per_second", "backlog_bytes",
                          "checkpoint_seconds", "background_processor_seconds"})
    EXPECT_EQ(Losses("lazy", key).size(), 12u) << key;
  // Of parameters and both moments, as the update told them.
  for (const auto& [step, checked] : Losses("lazy", "checked_sums")) EXPECT_EQ(checked, 3) << step;

  // Saves that are skipped leave the others right, and the last state is always saved.
  config_.checkpoint.when_busy = "skip";
  config_.checkpoint.in_flight = 1;
  config_.checkpoint.storage = "threads";
  ASSERT_TRUE(TrainOn(2, "skip").ok());
  const std::map<int64_t, std::string> some = StateHashes("skip");
  EXPECT_TRUE(some.count(12));
  for (const auto& [step, hash] : some) EXPECT_EQ(hash, hashes.at(step)) << step;
}

TEST_F(TrainTest, AnAutomaticIntervalSavesAfterTheFirstStepAndAtTheEnd) {
  config_.run.steps = 6;
  config_.checkpoint.interval = {0, 0, true};
  ASSERT_TRUE(TrainOn(1, "auto").ok());
  EXPECT_TRUE(StateHashes("auto").count(1));
  EXPECT_TRUE(StateHashes("auto").count(6));
  const std::map<int64_t, double> checked = Losses("auto", "checked_sums");
  EXPECT_EQ(checked.at(1), 3);
  EXPECT_EQ(checked.at(6), 3);
  const std::string text = LogOf("auto");
  EXPECT_NE(text.find("checkpoint.interval \"auto\": a save every"), std::string::npos) << text;
  EXPECT_NE(text.find("time between failures"), std::string::npos) << text;
}

TEST_F(TrainTest, AnIntervalInSeconds) {
  config_.run.steps = 6;
  config_.checkpoint.keep_last = 100;
  config_.checkpoint.interval = {0, 1e-9, false};
  ASSERT_TRUE(TrainOn(2, "often").ok());
  EXPECT_EQ(StateHashes("often").size(), 6u);
  config_.checkpoint.interval = {0, 1e6, false};
  ASSERT_TRUE(TrainOn(2, "seldom").ok());
  const std::map<int64_t, std::string> seldom = StateHashes("seldom");
  EXPECT_EQ(seldom.size(), 1u);
  EXPECT_TRUE(seldom.count(6)) << "the last state";
}

TEST_F(TrainTest, StepsBesideASaveAreComparedWithOthers) {
  config_.run.steps = 12;
  config_.metrics.evaluate_every = 0;
  config_.checkpoint.interval.steps = 3;
  std::filesystem::create_directory(directory_.path() + "/memory");
  config_.checkpoint.memory.directory = directory_.path() + "/memory";
  config_.checkpoint.memory.interval.steps = 6;
  ASSERT_TRUE(TrainOn(2, "beside").ok());
  // The last save has no step beside it.
  const std::map<int64_t, double> slow_down = Losses("beside", "slow_down");
  EXPECT_EQ(slow_down.size(), 3u);
  const std::map<int64_t, double> beside = Losses("beside", "step_seconds_beside");
  const std::map<int64_t, double> alone = Losses("beside", "step_seconds_alone");
  for (const int64_t step : {3, 6, 9}) {
    ASSERT_TRUE(slow_down.count(step)) << step;
    EXPECT_GT(beside.at(step), 0);
    EXPECT_NEAR(slow_down.at(step), beside.at(step) / alone.at(step) - 1, 1e-9);
  }
  const std::string log = LogOf("beside");
  const size_t shared = log.find("checkpoints: 4 saved");
  ASSERT_NE(shared, std::string::npos) << log;
  EXPECT_NE(log.find("; steps beside saves took ", shared), std::string::npos) << log;
  EXPECT_NE(log.find("in memory: checkpoints: "), std::string::npos) << log;
}

// Votes that come late make every save longer than a step.
TEST_F(TrainTest, SavesThatAreSlowerThanTheirIntervalAreToldOf) {
  config_.run.steps = 3;
  config_.checkpoint.interval.steps = 1;
  config_.checkpoint.in_flight = 1;
  wrap_ = [](Transport& transport, Device&) {
    return std::make_unique<FaultyTransport>(
        transport, [](const std::string&) { return true; }, std::chrono::milliseconds(400),
        static_cast<uint64_t>(transport.rank()));
  };
  ASSERT_TRUE(TrainOn(2, "waits").ok());
  std::string log = LogOf("waits");
  const std::string told = " waits, and training with it: 1 is under way";
  EXPECT_NE(log.find(told), std::string::npos) << log;
  EXPECT_EQ(log.find(told), log.rfind(told)) << "said twice: " << log;
  EXPECT_NE(log.find("checkpoints: 3 saved"), std::string::npos) << log;
  config_.checkpoint.when_busy = "skip";
  ASSERT_TRUE(TrainOn(2, "skips").ok());
  log = LogOf("skips");
  EXPECT_NE(log.find("checkpoint of step 2 skipped: 1 is under way"), std::string::npos) << log;
  EXPECT_EQ(log.find(told), std::string::npos) << log;
}

// Ranks as threads are on one node: what protects from the loss of one is not kept, and it is said.
TEST_F(TrainTest, OneNodeKeepsNeitherCopiesNorParityAndSaysSo) {
  config_.run.steps = 4;
  config_.checkpoint.memory.interval.steps = config_.checkpoint.local.interval.steps = 1;
  config_.checkpoint.memory.directory = config_.checkpoint.local.directory = directory_.path();
  const absl::Status same = TrainOn(2, "same");
  EXPECT_EQ(same.code(), absl::StatusCode::kInvalidArgument) << same;
  EXPECT_NE(same.message().find("memory_directory and checkpoint.local_directory are the same"),
            std::string::npos)
      << same;
  std::filesystem::create_directory(directory_.path() + "/disk");
  config_.checkpoint.local.directory = directory_.path() + "/disk";
  config_.checkpoint.memory.partner = true;
  config_.checkpoint.local.erasure = "4+1";
  const auto expect = [](const std::string& log, const std::string& text) {
    EXPECT_NE(log.find(text), std::string::npos) << text << "\n" << log;
  };
  ASSERT_TRUE(TrainOn(2, "first").ok());
  const std::string first = LogOf("first");
  expect(first, "checkpoint.memory_partner: all ranks are on one node, so no copies are kept");
  expect(
      first,
      "checkpoint.local_erasure: \"4+1\" is for 5 nodes, there are 1, too few to keep any parity");
  for (const char* tier : {"memory", "local"}) {
    expect(first, std::string("in ") + tier + ": checkpoints: ");
  }

  std::swap(config_.checkpoint.memory.partner, config_.checkpoint.local.partner);
  std::swap(config_.checkpoint.memory.erasure, config_.checkpoint.local.erasure);
  config_.checkpoint.memory.erasure = "1+1";
  ASSERT_TRUE(TrainOn(2, "second").ok());
  const std::string second = LogOf("second");
  expect(second, "checkpoint.local_partner: all ranks are on one node, so no copies are kept");
  expect(
      second,
      "checkpoint.memory_erasure: \"1+1\" is for 2 nodes, there are 1, too few to keep any parity");
  EXPECT_EQ(second.find("each in that of another node too"), std::string::npos) << second;
  EXPECT_EQ(second.find("with parity on other nodes"), std::string::npos) << second;
}

TEST_F(TrainTest, SavesThatFailInARowEndTheRunIfAskedTo) {
  config_.run.steps = 100000;
  config_.checkpoint.interval.steps = 1;
  config_.checkpoint.max_failures = 3;
  // Somebody takes the checkpoint directory away once the run has claimed its generation.
  const std::string checkpoints = Folder("failing") + "/checkpoints";
  std::thread thief([&] {
    while (!std::filesystem::exists(checkpoints + "/latest")) std::this_thread::yield();
    std::filesystem::rename(checkpoints, Folder("failing") + "/stolen");
  });
  const absl::Status status = TrainOn(2, "failing");
  thief.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status.ToString();
  EXPECT_NE(std::string(status.message()).find("max_failures"), std::string::npos);
}

TEST_F(TrainTest, ResumeOnOtherRanksContinues) {
  config_.run.steps = 12;
  config_.batch.micro_batch_tokens = 160;
  ASSERT_TRUE(TrainOn(4, "whole").ok());
  ASSERT_TRUE(TrainOn(4, "fewer", "", /*stop_after=*/6).ok());
  const std::string hash = StateHash("fewer");
  ASSERT_TRUE(TrainOn(2, "fewer", "auto").ok());
  EXPECT_NE(StateHash("fewer"), hash);
  for (const auto& [step, loss] : Losses("whole"))
    EXPECT_NEAR(Losses("fewer").at(step), loss, 1e-4 * loss) << step;
}

TEST_F(TrainTest, AStopRequestCommitsAndAResumeFinishes) {
  config_.run.steps = 8;
  std::atomic<bool> stop{true};  // as if the signal came before the first step ended
  ASSERT_TRUE(TrainOn(2, "stopped", "", 0, &stop).ok());
  EXPECT_EQ(Losses("stopped").size(), 1u);
  EXPECT_TRUE(
      std::filesystem::exists(Folder("stopped") + "/checkpoints/step-00000001.g0001/COMMIT"));
  ASSERT_TRUE(TrainOn(2, "stopped", "auto").ok());
  EXPECT_EQ(Losses("stopped").size(), 8u);
}

TEST_F(TrainTest, RefusesWhatWouldHarm) {
  config_.run.steps = 2;
  ASSERT_TRUE(TrainOn(1, "a").ok());
  const absl::Status again = TrainOn(2, "a");
  EXPECT_EQ(again.code(), absl::StatusCode::kAlreadyExists) << again.ToString();
  EXPECT_NE(std::string(again.message()).find("--resume auto"), std::string::npos);

  config_.batch.tokens = 400;
  const absl::Status changed = TrainOn(2, "a", "auto");
  EXPECT_EQ(changed.code(), absl::StatusCode::kInvalidArgument) << changed.ToString();
  EXPECT_NE(std::string(changed.message()).find("batch.tokens was 500, is now 400"),
            std::string::npos)
      << changed.ToString();
  config_.batch.tokens = 500;

  const std::string other = directory_.path() + "/other.h5";
  WriteCorpus(other, {100, 200});
  config_.data.sources = {{other, 1.0}};
  EXPECT_EQ(TrainOn(2, "a", "auto").code(), absl::StatusCode::kInvalidArgument);
  config_.data.sources = {{corpus_, 1.0}};

  config_.batch.micro_batch_tokens = 100;
  const absl::Status narrow = TrainOn(2, "b");
  EXPECT_EQ(narrow.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(narrow.message()).find("--set batch.micro_batch_tokens="),
            std::string::npos)
      << narrow.ToString();
  config_.batch.micro_batch_tokens = 300;

  config_.model.vocab = 100;
  const absl::Status vocabulary = TrainOn(2, "b");
  EXPECT_NE(std::string(vocabulary.message()).find("vocabulary of 257"), std::string::npos)
      << vocabulary.ToString();
  config_.model.vocab = 0;

  config_.data.sources = {{directory_.path() + "/missing.h5", 1.0}};
  const absl::Status missing = TrainOn(2, "b");
  EXPECT_NE(std::string(missing.message()).find("missing.h5"), std::string::npos)
      << missing.ToString();
  EXPECT_FALSE(std::filesystem::exists(Folder("b"))) << "nothing is made before the checks";
}

TEST_F(TrainTest, ResumeAutoWithoutACheckpointStartsFresh) {
  config_.run.steps = 2;
  const absl::Status status = TrainOn(2, "fresh", "auto");
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(Losses("fresh").size(), 2u);
}

TEST_F(TrainTest, ADamagedCheckpointIsLeftForTheOneBefore) {
  config_.run.steps = 6;
  config_.checkpoint.interval.steps = 2;
  ASSERT_TRUE(TrainOn(2, "damaged", "", /*stop_after=*/4).ok());
  const std::string file = Folder("damaged") + "/checkpoints/step-00000004.g0001/rank-00001.h5";
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekp(static_cast<std::streamoff>(std::filesystem::file_size(file)) - 1000);
  bytes.put('\x5a');
  bytes.close();
  ASSERT_TRUE(TrainOn(2, "damaged", "auto").ok());
  ASSERT_TRUE(TrainOn(2, "whole").ok());
  EXPECT_EQ(Losses("damaged"), Losses("whole")) << "steps 3 and 4 were made again from step 2";
  EXPECT_NE(LogOf("damaged").find("(step 2)"), std::string::npos) << LogOf("damaged");
}

TEST_F(TrainTest, AStepWithoutACommitRecordIsNotResumed) {
  config_.run.steps = 6;
  config_.checkpoint.interval.steps = 2;
  ASSERT_TRUE(TrainOn(2, "torn", "", /*stop_after=*/4).ok());
  std::filesystem::remove(Folder("torn") + "/checkpoints/step-00000004.g0001/COMMIT");
  ASSERT_TRUE(TrainOn(2, "torn", "auto").ok());
  EXPECT_NE(LogOf("torn").find("(step 2)"), std::string::npos) << LogOf("torn");
  ASSERT_TRUE(TrainOn(2, "whole").ok());
  EXPECT_EQ(Losses("torn"), Losses("whole"));
  EXPECT_EQ(StateHash("torn"), StateHash("whole"));
}

TEST_F(TrainTest, ALossThatIsNotFiniteStopsOrSkips) {
  config_.run.steps = 6;
  config_.schedule.peak = 1e30;
  config_.optimizer.clip = 0;
  config_.checkpoint.interval.steps = 1;
  const absl::Status stopped = TrainOn(2, "nan");
  EXPECT_EQ(stopped.code(), absl::StatusCode::kInternal) << stopped.ToString();
  EXPECT_NE(std::string(stopped.message()).find("document"), std::string::npos)
      << stopped.ToString();
  EXPECT_NE(std::string(stopped.message()).find("step "), std::string::npos);
  config_.run.on_nonfinite = "skip";
  const absl::Status skipped = TrainOn(2, "skip");
  EXPECT_TRUE(skipped.ok()) << skipped.ToString();
}

}  // namespace
}  // namespace longspan
