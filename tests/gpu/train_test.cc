// Training on a GPU beside training on the CPU: the same losses within bf16's rounding, on one rank
// and on several that share the GPU, and checkpoints that either goes on from.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../runtime/train_fixture.h"
#include "kernels/device/cuda_device.h"
#include "kernels/device/trace.h"
#include "nlohmann/json.hpp"
#include "parallel/transport/nccl_transport.h"
#include "parallel/transport/staged_transport.h"
#include "runtime/trace/trace_summary.h"
#include "runtime/train/dry_run.h"

namespace longspan {
namespace {

class GpuTrainTest : public TrainFixture {
 protected:
  void SetUp() override {
    const absl::StatusOr<std::unique_ptr<Device>> device = OpenCuda(0);
    if (!device.ok()) GTEST_SKIP() << device.status();
    config_.run.steps = 3;
    config_.schedule.warmup = 0;
    config_.model.layers = 2;
    config_.data.validation.share = 0.2;
    config_.checkpoint.interval.steps = 2;
    config_.metrics.evaluate_every = 2;
  }

  void OnGpu() {
    open_device_ = [](int) { return OpenCuda(0); };
  }
  void OnCpu() { open_device_ = nullptr; }

  void ExpectOk(int ranks, const std::string& name, const std::string& resume = "",
                int64_t stop_after = 0) {
    const absl::Status status = TrainOn(ranks, name, resume, stop_after);
    ASSERT_TRUE(status.ok()) << name << ": " << status;
  }

  void ExpectNear(const std::map<int64_t, double>& got, const std::map<int64_t, double>& wanted,
                  double tolerance, const std::string& name) {
    ASSERT_EQ(got.size(), wanted.size()) << name;
    for (const auto& [step, loss] : wanted) {
      EXPECT_NEAR(got.at(step), loss, tolerance * loss) << name << ", step " << step;
    }
  }
};

TEST_F(GpuTrainTest, OneToFourRanksAgreeWithTheCpu) {
  ExpectOk(1, "cpu");
  const std::map<int64_t, double> cpu = Losses("cpu");
  ASSERT_EQ(cpu.size(), 3u);
  EXPECT_LT(cpu.at(3), 0.97 * cpu.at(1)) << "it learns";
  OnGpu();
  for (const auto& [ranks, capacity] : std::map<int, int64_t>{{1, 300}, {2, 160}, {4, 100}}) {
    config_.batch.micro_batch_tokens = capacity;
    const std::string name = "gpu" + std::to_string(ranks);
    ExpectOk(ranks, name);
    ExpectNear(Losses(name), cpu, 5e-3, name);
    ExpectNear(Losses(name, "validation_loss"), Losses("cpu", "validation_loss"), 5e-3, name);
    ExpectNear(Losses(name, "gradient_norm"), Losses("cpu", "gradient_norm"), 5e-2, name);
  }
}

TEST_F(GpuTrainTest, Gpt2AgreesWithTheCpu) {
  config_.model.family = "gpt2";
  config_.model.kv_heads = 4;
  config_.run.steps = 2;
  ExpectOk(1, "cpu");
  OnGpu();
  ExpectOk(1, "gpu");
  ExpectNear(Losses("gpu"), Losses("cpu"), 5e-3, "gpt2");
}

TEST_F(GpuTrainTest, SplitHeadsAgreeWithTheCpu) {
  config_.run.steps = 2;
  config_.batch.micro_batch_tokens = 100;
  config_.attention.head_parallel = {2};
  ExpectOk(4, "cpu");
  OnGpu();
  ExpectOk(4, "gpu");
  ExpectNear(Losses("gpu"), Losses("cpu"), 5e-3, "heads");
}

// Sequences of up to 299 tokens on members of 100 and 160: windows within a part and over several.
TEST_F(GpuTrainTest, AWindowAgreesWithTheCpu) {
  config_.run.steps = 2;
  for (const int64_t window : {24, 130}) {
    config_.attention.window = window;
    OnCpu();
    config_.batch.micro_batch_tokens = 300;
    const std::string of = " of " + std::to_string(window);
    ExpectOk(1, "cpu" + of);
    OnGpu();
    for (const auto& [ranks, capacity] : std::map<int, int64_t>{{1, 300}, {2, 160}, {3, 100}}) {
      config_.batch.micro_batch_tokens = capacity;
      const std::string name = "gpu" + std::to_string(ranks) + of;
      ExpectOk(ranks, name);
      ExpectNear(Losses(name), Losses("cpu" + of), 5e-3, name);
      ExpectNear(Losses(name, "gradient_norm"), Losses("cpu" + of, "gradient_norm"), 5e-2, name);
    }
  }
}

TEST_F(GpuTrainTest, CheckpointsMoveBetweenDevices) {
  ExpectOk(1, "cpu");
  const std::map<int64_t, double> whole = Losses("cpu");
  // Any ranks, either way, lazily or not.
  config_.batch.micro_batch_tokens = 160;
  for (const bool lazy : {true, false}) {
    config_.checkpoint.mode = lazy ? "lazy" : "synchronous";
    const std::string mode = config_.checkpoint.mode;
    OnGpu();
    ExpectOk(2, mode + "-to-cpu", "", 2);
    OnCpu();
    ExpectOk(3, mode + "-to-cpu", "auto");
    ExpectNear(Losses(mode + "-to-cpu"), whole, 5e-3, mode + "-to-cpu");
    ExpectOk(2, mode + "-to-gpu", "", 2);
    OnGpu();
    ExpectOk(3, mode + "-to-gpu", "auto");
    ExpectNear(Losses(mode + "-to-gpu"), whole, 5e-3, mode + "-to-gpu");
  }
}

TEST_F(GpuTrainTest, AResumeGoesOnBitForBit) {
  config_.run.deterministic = true;
  config_.checkpoint.memory.interval.steps = 1;
  config_.checkpoint.memory.directory = directory_.path();
  OnGpu();
  config_.batch.micro_batch_tokens = 160;
  ExpectOk(2, "whole");
  ExpectOk(2, "parts", "", 2);
  ExpectOk(2, "parts", "auto");
  EXPECT_EQ(Losses("parts"), Losses("whole"));
  EXPECT_EQ(StateHash("parts"), StateHash("whole"));
}

TEST_F(GpuTrainTest, TheStagedTransportGivesTheSameBits) {
  config_.run.deterministic = true;
  config_.run.steps = 2;
  config_.batch.micro_batch_tokens = 100;
  OnGpu();
  ExpectOk(4, "in-process");
  wrap_ = [](Transport& transport, Device& device) {
    return MakeStagedTransport(transport, device, {.piece_bytes = 4096});
  };
  ExpectOk(4, "staged");
  EXPECT_EQ(Losses("staged"), Losses("in-process"));
  EXPECT_EQ(StateHash("staged"), StateHash("in-process"));
}

// Gradients as bf16 on the way between ranks, which add them up in f32: the bits do not depend on
// how they travel.
TEST_F(GpuTrainTest, Bf16GradientsAgreeWithTheCpu) {
  config_.run.deterministic = true;
  config_.run.steps = 2;
  config_.batch.micro_batch_tokens = 128;
  ExpectOk(3, "cpu");
  OnGpu();
  ExpectOk(3, "f32");
  config_.optimizer.wire = "bf16";
  ExpectOk(3, "in-process");
  ExpectNear(Losses("in-process"), Losses("cpu"), 5e-3, "in-process");
  ExpectNear(Losses("in-process", "gradient_norm"), Losses("cpu", "gradient_norm"), 5e-2,
             "in-process");
  EXPECT_NE(StateHash("in-process"), StateHash("f32"));
  wrap_ = [](Transport& transport, Device& device) {
    return MakeStagedTransport(transport, device, {.piece_bytes = 4096});
  };
  ExpectOk(3, "staged");
  EXPECT_EQ(Losses("staged"), Losses("in-process"));
  EXPECT_EQ(StateHash("staged"), StateHash("in-process"));
}

// What a dry run says beside the memory table of the run itself, on the CPU and on the GPU.
TEST_F(GpuTrainTest, ADryRunTellsTheMemory) {
  config_.run.steps = 2;
  for (const auto& [kind, ranks] : {std::pair(DeviceKind::kCpu, 1), std::pair(DeviceKind::kCuda, 1),
                                    std::pair(DeviceKind::kCuda, 2)}) {
    const bool gpu = kind == DeviceKind::kCuda;
    const std::string name = (gpu ? "gpu" : "cpu") + std::to_string(ranks);
    SCOPED_TRACE(name);
    config_.batch.micro_batch_tokens = ranks == 1 ? 300 : 160;
    gpu ? OnGpu() : OnCpu();
    ExpectOk(ranks, name);
    nlohmann::json table;
    std::ifstream metrics(Folder(name) + "/metrics.jsonl");
    for (std::string line; std::getline(metrics, line);) {
      const nlohmann::json object = nlohmann::json::parse(line);
      if (object.contains("memory_bytes")) table = object["memory_bytes"];
    }
    const absl::StatusOr<std::string> text = DryRun(config_, ranks, kind, /*json=*/true);
    ASSERT_TRUE(text.ok()) << text.status();
    const nlohmann::json dry = nlohmann::json::parse(*text);
    EXPECT_EQ(dry["device"], gpu ? "cuda" : "cpu");
    const nlohmann::json &device = dry["bytes_per_rank"]["device"],
                         &host = dry["bytes_per_rank"]["host"];
    const auto estimate = [&](const char* tag) {
      return (device.contains(tag) ? device[tag].get<int64_t>() : 0) +
             (host.contains(tag) ? host[tag].get<int64_t>() : 0);
    };
    for (const char* tag : {"parameters", "gradients", "optimizer", "activations", "scratch"}) {
      EXPECT_EQ(estimate(tag), table[tag].get<int64_t>()) << tag;
      EXPECT_EQ(device.contains(tag), gpu) << tag;
    }
    // Of the rank with the most, and rank 0 need not be that one. Tokens of a step to come are gone
    // at the end.
    for (const char* tag : {"losses", "tokens"}) {
      EXPECT_GE(estimate(tag), table[tag].get<int64_t>()) << tag;
    }
    if (ranks == 1) {
      EXPECT_EQ(estimate("losses"), table["losses"].get<int64_t>());
    }
    // To a chunk, and what aligns it.
    EXPECT_NEAR(static_cast<double>(estimate("checkpoint pool")),
                static_cast<double>(table["checkpoint pool"].get<int64_t>()), 8.1 * (1 << 20));
    if (gpu) {
      EXPECT_GE(table["operators"].get<int64_t>(), estimate("operators"));
      EXPECT_GT(estimate("operators"), 0);
      EXPECT_EQ(device["gradients"].get<int64_t>() / 2,
                device["parameters"].get<int64_t>() - device["gradients"].get<int64_t>() / ranks)
          << "bf16 to compute with beside the shard's masters";
    } else {
      EXPECT_TRUE(device.empty()) << device;
    }
    const absl::StatusOr<std::string> lines = DryRun(config_, ranks, kind, /*json=*/false);
    ASSERT_TRUE(lines.ok()) << lines.status();
    EXPECT_EQ(lines->find("GPU memory") != std::string::npos, gpu) << *lines;
  }
}

// Streams time their work themselves: it lies within the step that launched it and waited for it.
TEST_F(GpuTrainTest, ATraceShowsDeviceTime) {
  OnGpu();
  config_.batch.micro_batch_tokens = 160;
  config_.data.validation.share = 0;  // the last evaluation follows the last step
  trace_.file = directory_.path() + "/trace.json";
  ExpectOk(2, "traced");
  struct Span {
    double begin, end;
    std::string name, kind;
    int64_t step;
  };
  std::map<std::pair<int, int>, std::string> rows;
  std::map<std::pair<int, int>, std::vector<Span>> spans;
  const nlohmann::json file = nlohmann::json::parse(std::ifstream(trace_.file));
  EXPECT_EQ(file["otherData"]["dropped_events"], 0);
  for (const nlohmann::json& event : file["traceEvents"]) {
    if (event["ph"] == "M") {
      if (event["name"] == "thread_name")
        rows[{event["pid"], event["tid"]}] = event["args"]["name"].get<std::string>();
      continue;
    }
    const double begin = event["ts"], seconds = event["dur"];
    ASSERT_GE(seconds, 0) << event;
    const int64_t step = event["args"].contains("step") ? event["args"]["step"].get<int64_t>() : -1;
    spans[{event["pid"], event["tid"]}].push_back(
        {begin, begin + seconds, event["name"], event["cat"], step});
  }
  constexpr double kRounding = 2e-3;  // of microseconds with decimals
  for (const int rank : {0, 1}) {
    std::map<int64_t, Span> steps;
    for (const Span& span : spans[{rank, TraceRecorder::kHostRow}]) {
      if (span.kind == "step") steps[span.step] = span;
    }
    EXPECT_EQ(steps.size(), 3u);
    std::map<std::string, std::set<std::string>> kinds;  // by row
    for (auto& [place, of_row] : spans) {
      const std::string& row = rows[place];
      if (place.first != rank) continue;
      for (const Span& span : of_row) kinds[row].insert(span.kind);
      if (row != "compute") continue;
      std::stable_sort(of_row.begin(), of_row.end(), [](const Span& a, const Span& b) {
        return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
      });
      std::vector<Span> open;
      for (const Span& span : of_row) {
        while (!open.empty() && open.back().end <= span.begin + kRounding) open.pop_back();
        if (!open.empty()) {
          EXPECT_LE(span.end, open.back().end + kRounding) << span.name;
        }
        open.push_back(span);
        ASSERT_TRUE(steps.contains(span.step)) << span.name;
        EXPECT_GE(span.begin, steps[span.step].begin - kRounding) << span.name;
        EXPECT_LE(span.end, steps[span.step].end + kRounding) << span.name;
      }
    }
    for (const char* kind : {"task", "ring", "wait", "reduction", "update", "kernel"}) {
      EXPECT_TRUE(kinds["compute"].contains(kind)) << kind;
    }
    for (const char* row : {"messages", "checkpoint"}) {
      EXPECT_TRUE(kinds[row].contains("kernel")) << row << ": copies";
    }
  }
  const absl::StatusOr<TraceSummary> summary = ReadTraceSummary(trace_.file);
  ASSERT_TRUE(summary.ok()) << summary.status();
  for (const RankSummary& rank : summary->ranks) {
    for (const TracePart part :
         {TracePart::kCompute, TracePart::kRingWait, TracePart::kReduction, TracePart::kUpdate}) {
      EXPECT_GT(rank.parts[part], 0) << Name(part);
    }
    EXPECT_GT(rank.sent_bytes, 0);
  }
}

// A GPU for each rank.
TEST_F(GpuTrainTest, NcclAgreesWithTheCpu) {
  if (const auto version = NcclVersion(); !version.ok()) GTEST_SKIP() << version.status();
  if (CountGpus() < 2) GTEST_SKIP() << "there is one GPU alone";
  config_.run.steps = 2;
  config_.batch.micro_batch_tokens = 160;
  ExpectOk(2, "cpu");
  open_device_ = [](int rank) { return OpenCuda(rank); };
  wrap_ = [](Transport& transport, Device& device) {
    return OpenNcclTransport(transport, device).value();
  };
  trace_.file = directory_.path() + "/trace.json";
  ExpectOk(2, "nccl");
  ExpectNear(Losses("nccl"), Losses("cpu"), 5e-3, "nccl");
  // Messages are timed by the stream that sends them.
  const absl::StatusOr<TraceSummary> summary = ReadTraceSummary(trace_.file);
  ASSERT_TRUE(summary.ok()) << summary.status();
  ASSERT_EQ(summary->ranks.size(), 2u);
  EXPECT_GT(summary->ranks[0].sent_bytes, 0);
  EXPECT_EQ(summary->ranks[0].sent_bytes, summary->ranks[1].received_bytes);
  EXPECT_EQ(summary->ranks[1].sent_bytes, summary->ranks[0].received_bytes);
  config_.optimizer.wire = "bf16";
  ExpectOk(2, "nccl-bf16");
  ExpectNear(Losses("nccl-bf16"), Losses("cpu"), 5e-3, "nccl, bf16 gradients");
  EXPECT_NE(Losses("nccl-bf16"), Losses("nccl"));
}

}  // namespace
}  // namespace longspan
