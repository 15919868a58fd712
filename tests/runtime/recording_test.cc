// What training records for refined schedules: the same on any number of ranks and across resumes;
// and what a later run makes of it.
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/metrics/norm_log.h"
#include "runtime/train/run_schedule.h"
#include "train_fixture.h"

namespace longspan {
namespace {

class RecordingTest : public TrainFixture {
 protected:
  RecordingTest() {
    config_.run.steps = 10;
    config_.data.validation.share = 0;
    config_.model.layers = 1;
    config_.optimizer.clip = 0.5;
    config_.checkpoint.interval.steps = 100;
  }

  NormLogContents Read(const std::string& name) const {
    absl::StatusOr<NormLogContents> contents = ReadNormLog(Folder(name) + "/norms.h5");
    EXPECT_TRUE(contents.ok()) << contents.status().ToString();
    return contents.ok() ? *contents : NormLogContents();
  }
};

void ExpectSame(const NormLogContents& a, const NormLogContents& b, double tolerance) {
  ASSERT_EQ(a.updates.size(), b.updates.size());
  for (size_t t = 0; t < a.updates.size(); ++t) {
    const double* x = &a.updates[t].l1;
    const double* y = &b.updates[t].l1;
    for (size_t field = 0; field < sizeof(NormRecord) / sizeof(double); ++field) {
      EXPECT_NEAR(x[field], y[field], tolerance * std::abs(x[field])) << t << " " << field;
    }
  }
}

TEST_F(RecordingTest, NormsAreThoseOfOneRankOnOneToFour) {
  ASSERT_TRUE(TrainOn(1, "one").ok());
  const NormLogContents one = Read("one");
  ASSERT_EQ(one.recorded(), 10);
  for (const NormRecord& record : one.updates) {
    EXPECT_GT(record.l1, record.l2);
    EXPECT_GT(record.adam, 0);
    EXPECT_LE(record.adam, 10 * record.l1) << "l1 but for the share that sqrt(v) lags behind |g|";
    EXPECT_NEAR(record.clip_factor, std::min(1.0, 0.5 / (record.l2 + 1e-6)), 1e-12);
    EXPECT_EQ(record.non_finite, 0);
    EXPECT_GT(record.tokens, 0);
  }
  const std::map<int, int64_t> capacities = {{2, 160}, {3, 128}, {4, 100}};
  for (const auto& [ranks, capacity] : capacities) {
    config_.batch.micro_batch_tokens = capacity;
    const std::string name = "ranks" + std::to_string(ranks);
    ASSERT_TRUE(TrainOn(ranks, name).ok());
    const NormLogContents several = Read(name);
    ExpectSame(one, several, 1e-6);
  }
}

TEST_F(RecordingTest, AResumeOverwritesWhatAnAbandonedAttemptLeft) {
  ASSERT_TRUE(TrainOn(2, "whole").ok());
  ASSERT_TRUE(TrainOn(2, "parts", "", 4).ok());
  EXPECT_EQ(Read("parts").recorded(), 4);
  EXPECT_FALSE(std::isnan(Read("parts").updates[3].adam)) << "the last one's comes with the stop";
  // As if the run had gone on to update 7 and been killed there.
  NormLogContents abandoned = Read("parts");
  for (int t = 4; t < 7; ++t) abandoned.updates[t] = {9, 9, 9, 9, 9, 9, 9, 9};
  ASSERT_TRUE(NormLog::Create(Folder("parts") + "/norms.h5", abandoned).ok());
  ASSERT_TRUE(TrainOn(2, "parts", "auto", 2).ok());
  EXPECT_EQ(Read("parts").recorded(), 6);
  ASSERT_TRUE(TrainOn(2, "parts", "auto").ok());
  ExpectSame(Read("whole"), Read("parts"), 0);
}

TEST_F(RecordingTest, SkippedUpdatesAreMissing) {
  config_.run.on_nonfinite = "skip";
  config_.schedule.peak = 1e30;
  config_.optimizer.clip = 0;
  ASSERT_TRUE(TrainOn(1, "skip").ok());
  const NormLogContents contents = Read("skip");
  EXPECT_EQ(contents.recorded(), 10);
  EXPECT_TRUE(std::isnan(contents.updates[9].l1));
  EXPECT_TRUE(std::isnan(contents.updates[9].adam));
}

TEST_F(RecordingTest, ARefinedScheduleFollowsFromARun) {
  config_.run.steps = 20;
  ASSERT_TRUE(TrainOn(1, "first").ok());
  config_.schedule.kind = "refined";
  config_.schedule.from = Folder("first");
  config_.run.steps = 15;
  const absl::StatusOr<Schedule> schedule = ScheduleOf(config_);
  ASSERT_TRUE(schedule.ok()) << schedule.status().ToString();
  EXPECT_EQ(schedule->steps(), 15);
  EXPECT_NE(schedule->config().note.find("l1 norms of 20 updates"), std::string::npos);
  EXPECT_NE(schedule->config().note.find("annealed"), std::string::npos) << "linear, with decay";
  ASSERT_TRUE(TrainOn(2, "second").ok());
  const NormLogContents second = Read("second");
  for (int t = 0; t < 15; ++t) EXPECT_EQ(second.updates[t].rate, schedule->Rate(t));

  config_.schedule.from = Folder("nowhere");
  EXPECT_EQ(TrainOn(1, "third").code(), absl::StatusCode::kNotFound);
}

TEST_F(RecordingTest, AResumeWithAnotherBudgetIsRefusedOrReplanned) {
  ASSERT_TRUE(TrainOn(1, "run").ok());
  const NormLogContents before = Read("run");
  config_.run.steps = 16;
  const absl::Status refused = TrainOn(2, "run", "auto");
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  for (const char* text :
       {"run.steps was 10, is now 16", "=retime", "=rescale", "=hold", "=finish"})
    EXPECT_NE(std::string(refused.message()).find(text), std::string::npos) << refused.ToString();

  config_.schedule.on_budget_change = "retime";
  ASSERT_TRUE(TrainOn(2, "run", "auto", 2).ok());
  const absl::Status again = TrainOn(2, "run", "auto");  // the re-planned schedule goes on
  ASSERT_TRUE(again.ok()) << again.ToString();
  const NormLogContents after = Read("run");
  ASSERT_EQ(after.recorded(), 16);
  for (int t = 0; t < 10; ++t) EXPECT_EQ(after.updates[t].rate, before.updates[t].rate);
  const absl::StatusOr<Schedule> plan = Schedule::FromJson(after.schedule);
  ASSERT_TRUE(plan.ok());
  for (int t = 0; t < 16; ++t) EXPECT_EQ(after.updates[t].rate, plan->Rate(t));
  EXPECT_GT(after.updates[10].rate, after.updates[9].rate);

  config_.run.steps = 20;
  config_.schedule.on_budget_change = "rescale";
  ASSERT_TRUE(TrainOn(1, "run", "auto").ok());
  for (int t = 16; t < 20; ++t)
    EXPECT_EQ(Read("run").updates[t].rate, ScheduleOf(config_)->Rate(t));
  config_.run.steps = 12;
  EXPECT_NE(std::string(TrainOn(1, "run", "auto").message()).find("made 20 updates already"),
            std::string::npos);
}

TEST_F(RecordingTest, AResumeNeedsNotTheFilesOfItsSchedule) {
  ASSERT_TRUE(TrainOn(1, "first").ok());
  config_.schedule.kind = "refined";
  config_.schedule.from = Folder("first");
  ASSERT_TRUE(TrainOn(1, "second", "", 5).ok());
  std::filesystem::remove_all(Folder("first"));
  const absl::Status resumed = TrainOn(1, "second", "auto");
  EXPECT_TRUE(resumed.ok()) << resumed.ToString();
  config_.schedule.peak = 1e-3;
  config_.run.steps = 11;
  config_.schedule.on_budget_change = "rescale";
  EXPECT_EQ(TrainOn(1, "second", "auto").code(), absl::StatusCode::kNotFound);
}

TEST_F(RecordingTest, SgdTrainsAndRecordsL2) {
  config_.optimizer.kind = "sgd";
  config_.optimizer.weight_decay = 0;
  config_.schedule.peak = 0.5;
  config_.run.steps = 30;
  ASSERT_TRUE(TrainOn(2, "sgd", "", 11).ok());
  ASSERT_TRUE(TrainOn(2, "sgd", "auto").ok());
  ASSERT_TRUE(TrainOn(2, "whole").ok());
  const NormLogContents contents = Read("sgd");
  EXPECT_LT(contents.updates[29].loss, 0.9 * contents.updates[0].loss) << "it learns";
  EXPECT_TRUE(std::isnan(contents.updates[5].adam));
  EXPECT_EQ(contents.norm_of_optimizer(), GradientNorm::kL2);
  for (int t = 0; t < 30; ++t)
    EXPECT_EQ(contents.updates[t].loss, Read("whole").updates[t].loss) << "resumed to the bit";
}

}  // namespace
}  // namespace longspan
