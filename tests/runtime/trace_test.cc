// Traces of training runs: the file, its summary, clocks of ranks that differ.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "corpus.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "parallel/transport/rank_threads.h"
#include "runtime/trace/clock_offset.h"
#include "runtime/trace/trace_summary.h"
#include "runtime/train/agreement.h"
#include "runtime/train/trainer.h"
#include "temporary_directory.h"

namespace longspan {
namespace {

using Json = nlohmann::json;

TEST(ClockOffsetTest, FindsTheDifferenceOfEveryRank) {
  constexpr int64_t kAhead = 5'000'000'000;  // each rank's clock is ahead of the one before
  std::vector<int64_t> offsets(3);
  const absl::Status status =
      RunRanks(3, [&](Transport& transport, Device& device) -> absl::Status {
        Stream stream = device.CreateStream("compute");
        const absl::StatusOr<int64_t> offset = ClockOffset(
            transport, stream, [&] { return TraceClock() + transport.rank() * kAhead; });
        if (!offset.ok()) return offset.status();
        offsets[transport.rank()] = *offset;
        return absl::OkStatus();
      });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(offsets[0], 0);
  for (int rank : {1, 2}) {
    EXPECT_NEAR(static_cast<double>(offsets[rank] + rank * kAhead), 0, 20e6) << rank;
  }
}

TEST(TraceSummaryTest, GoldenFileAddsUp) {
  const absl::StatusOr<TraceSummary> summary =
      ReadTraceSummary(std::string(LONGSPAN_TEST_DATA) + "/../golden/trace-v1.json");
  ASSERT_TRUE(summary.ok()) << summary.status();
  ASSERT_EQ(summary->ranks.size(), 2u);
  const std::map<TracePart, double> expected[2] = {{{TracePart::kCompute, 0.065},
                                                    {TracePart::kRingWait, 0.010},
                                                    {TracePart::kImbalance, 0.030},
                                                    {TracePart::kReduction, 0.015},
                                                    {TracePart::kUpdate, 0.020},
                                                    {TracePart::kData, 0.010},
                                                    {TracePart::kPlan, 0},
                                                    {TracePart::kCheckpoint, 0.010},
                                                    {TracePart::kEvaluation, 0},
                                                    {TracePart::kOther, 0.010}},
                                                   {{TracePart::kCompute, 0.110},
                                                    {TracePart::kRingWait, 0},
                                                    {TracePart::kImbalance, 0},
                                                    {TracePart::kReduction, 0.015},
                                                    {TracePart::kUpdate, 0.020},
                                                    {TracePart::kCheckpoint, 0.010},
                                                    {TracePart::kOther, 0.015}}};
  for (int rank : {0, 1}) {
    const RankSummary& measured = summary->ranks[rank];
    for (const auto& [part, seconds] : expected[rank]) {
      EXPECT_NEAR(measured.parts[part], seconds, 1e-9) << rank << " " << Name(part);
    }
    EXPECT_NEAR(measured.parts.total(), 0.170, 1e-9);
    EXPECT_NEAR(measured.step_seconds, 0.160, 1e-9);
    EXPECT_EQ(measured.transfers, 1);
  }
  EXPECT_EQ(summary->ranks[0].sent_bytes, 4096);
  EXPECT_EQ(summary->ranks[0].received_bytes, 2048);
  EXPECT_NEAR(summary->ranks[0].planning_seconds, 0.007, 1e-9);
  EXPECT_NEAR(summary->ranks[0].reading_seconds, 0.020, 1e-9);
  EXPECT_NEAR(summary->hidden_transfer_share(), 0.8, 1e-9);
  EXPECT_EQ(summary->busiest(), 1);
  EXPECT_EQ(summary->idlest(), 0);
  ASSERT_EQ(summary->steps.size(), 2u);
  EXPECT_EQ(summary->worst_steps(3), (std::vector<int>{0, 1}));
  EXPECT_NEAR(summary->steps[1].seconds, 0.060, 1e-9);
  EXPECT_NEAR(summary->steps[1].parts.total(), 0.060, 1e-9);
  EXPECT_NE(SummaryText(*summary).find("busiest: rank 1, 0.110 s"), std::string::npos);
  const Json json = Json::parse(SummaryJson(*summary));
  EXPECT_NEAR(json["parts"]["imbalance"], 0.030, 1e-9);
  EXPECT_EQ(json["worst_steps"], Json({1, 2}));
}

TEST(TraceSummaryTest, SaysWhatIsWrongWithAFile) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/trace.json";
  const std::string head =
      R"({"otherData":{"format":"longspan-trace","version":1},"traceEvents":[)";
  const std::map<std::string, std::string> cases = {
      {"", "no JSON"},
      {"{\"traceEvents\":[{\"ph\":\"X\"", "no JSON"},
      {"[]", "it has no \"traceEvents\""},
      {"{\"traceEvents\":[]}", "does not say format"},
      {R"({"otherData":{"format":"longspan-trace","version":2},"traceEvents":[]})", "version 2"},
      {head + "]}", "no steps"},
      {head + R"({"name":"x"}]})", "event 1 has no \"ph\""},
      {head + R"({"ph":"M"},{"ph":"X","pid":0,"tid":0,"ts":"1","dur":1,"cat":"step"}]})",
       "event 2 has no number \"ts\""},
      {head + R"({"ph":"X","pid":0,"tid":0,"ts":1,"dur":-1,"cat":"step"}]})", "less than nothing"},
      {head + R"({"ph":"X","pid":-1,"tid":0,"ts":1,"dur":1,"cat":"step"}]})", "no rank"},
  };
  for (const auto& [text, message] : cases) {
    std::ofstream(path) << text;
    const absl::Status status = ReadTraceSummary(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(status.message().find(message), absl::string_view::npos) << text << ": " << status;
    EXPECT_NE(status.message().find(path), absl::string_view::npos);
  }
  EXPECT_EQ(ReadTraceSummary(directory.path() + "/none.json").status().code(),
            absl::StatusCode::kNotFound);
}

class RunTraceTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string corpus = directory_.path() + "/corpus.h5";
    WriteCorpus(corpus, {299, 3, 150, 1, 77, 41, 260, 12, 180, 95, 30, 220, 64, 8});
    RunConfig& config = request_.config;
    config.run.directory = directory_.path();
    config.run.steps = 4;
    config.data.sources = {{corpus, 1.0}};
    config.data.validation.share = 0.2;
    config.model.layers = 2;
    config.model.width = 32;
    config.model.heads = 4;
    config.model.kv_heads = 2;
    config.model.ffn = 80;
    config.batch.tokens = 500;
    config.batch.micro_batch_tokens = 160;  // less than the longest: rings
    config.checkpoint.interval.steps = 2;
    config.metrics.evaluate_every = 2;
    request_.trace.file = directory_.path() + "/made/on/demand/trace.json";
  }

  absl::Status TrainOn(int ranks, const std::string& name) {
    request_.config.run.name = name;
    RankThreadOptions options;
    options.timeout = absl::Seconds(100);
    absl::Status agreed;
    const absl::Status status = RunRanks(
        ranks,
        [&](Transport& transport, Device& device) {
          absl::Status mine = Train(request_, transport, device);
          if (!IsAgreed(mine)) return mine;
          if (transport.rank() == 0) agreed = mine;
          return absl::OkStatus();
        },
        options);
    return agreed.ok() ? status : agreed;
  }

  Json File() const { return Json::parse(std::ifstream(request_.trace.file)); }

  TemporaryDirectory directory_;
  TrainRequest request_;
};

TEST_F(RunTraceTest, TwoRanksEndToEnd) {
  ASSERT_TRUE(TrainOn(2, "traced").ok());
  const Json file = File();
  EXPECT_EQ(file["otherData"]["ranks"], 2);
  EXPECT_EQ(file["otherData"]["dropped_events"], 0);
  struct Span {
    double begin, end;
    std::string name;
  };
  std::map<std::pair<int, int>, std::vector<Span>> rows;
  std::map<int, std::map<std::string, int>> kinds;  // by rank and category
  std::map<int, int64_t> sent, received;
  std::set<std::string> names;
  for (const Json& event : file["traceEvents"]) {
    if (event["ph"] == "M") continue;
    ASSERT_EQ(event["ph"], "X") << event;
    const double begin = event["ts"], seconds = event["dur"];
    ASSERT_GE(seconds, 0) << event;
    rows[{event["pid"], event["tid"]}].push_back({begin, begin + seconds, event["name"]});
    ++kinds[event["pid"]][event["cat"]];
    names.insert(event["name"].get<std::string>());
    if (event["cat"] == "transfer") {
      sent[event["pid"]] += event["args"]["sent_bytes"].get<int64_t>();
      received[event["pid"]] += event["args"]["received_bytes"].get<int64_t>();
      for (const char* key : {"step", "micro_batch", "layer", "ring_step", "to", "from"}) {
        EXPECT_TRUE(event["args"].contains(key)) << event;
      }
    }
  }
  for (int rank : {0, 1}) {
    for (const char* kind : {"step", "task", "ring", "transfer", "data", "plan", "reduction",
                             "update", "evaluation", "checkpoint", "kernel"}) {
      EXPECT_GT(kinds[rank][kind], 0) << rank << " " << kind;
    }
    EXPECT_EQ(kinds[rank]["step"], 4);
  }
  for (const char* name : {"micro-batch", "forward", "backward", "layer", "gemm"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  EXPECT_GT(sent[0], 0);
  EXPECT_EQ(sent[0], received[1]);
  EXPECT_EQ(sent[1], received[0]);
  // Of each row the spans nest: one that begins within another ends within it. (To a nanosecond: a
  // file has microseconds with decimals.)
  for (auto& [row, spans] : rows) {
    std::stable_sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
    });
    std::vector<Span> open;
    for (const Span& span : spans) {
      while (!open.empty() && open.back().end <= span.begin + 1e-3) open.pop_back();
      if (!open.empty()) {
        EXPECT_LE(span.end, open.back().end + 1e-3) << span.name << " in " << open.back().name;
      }
      open.push_back(span);
    }
  }

  const absl::StatusOr<TraceSummary> summary = ReadTraceSummary(request_.trace.file);
  ASSERT_TRUE(summary.ok()) << summary.status();
  ASSERT_EQ(summary->steps.size(), 4u);
  for (const RankSummary& rank : summary->ranks) {
    EXPECT_EQ(rank.sent_bytes, sent[rank.rank]);
    EXPECT_GT(rank.parts[TracePart::kCompute], 0);
    EXPECT_GT(rank.parts[TracePart::kEvaluation], 0);
    // The last save follows the last step.
    EXPECT_GE(rank.parts.total(), rank.step_seconds - 1e-6);
  }
  for (const StepSummary& step : summary->steps) {
    EXPECT_LE(step.parts.total(), step.seconds + 1e-6);
    EXPECT_GE(step.parts.total(), 0.5 * step.seconds);
  }
  double in_steps = 0, of_steps = 0;
  for (const StepSummary& step : summary->steps) in_steps += 2 * step.parts.total();
  for (const RankSummary& rank : summary->ranks) of_steps += rank.step_seconds;
  EXPECT_NEAR(in_steps, of_steps, 1e-6);
}

TEST_F(RunTraceTest, OnlyTheStepsAskedFor) {
  request_.trace.from_step = 2;
  request_.trace.to_step = 3;
  ASSERT_TRUE(TrainOn(2, "some").ok());
  EXPECT_EQ(File()["otherData"]["first_step"], 2);
  EXPECT_EQ(File()["otherData"]["last_step"], 3);
  const absl::StatusOr<TraceSummary> summary = ReadTraceSummary(request_.trace.file);
  ASSERT_TRUE(summary.ok()) << summary.status();
  ASSERT_EQ(summary->steps.size(), 2u);
  EXPECT_EQ(summary->steps[0].step, 2);
}

TEST_F(RunTraceTest, ARunThatEndsEarlyWritesWhatItHas) {
  request_.stop_after = 1;
  ASSERT_TRUE(TrainOn(2, "early").ok());
  EXPECT_EQ(File()["otherData"]["last_step"], 1);
}

TEST_F(RunTraceTest, AFileThatCannotBeWrittenIsKnownAtTheStart) {
  request_.trace.file = directory_.path();
  const absl::Status status = TrainOn(2, "refused");
  EXPECT_NE(status.message().find("cannot write the trace"), absl::string_view::npos) << status;
}

}  // namespace
}  // namespace longspan
