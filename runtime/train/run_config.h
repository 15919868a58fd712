// RunConfig: every value of a run's configuration, with its default. launch/config.cc maps file
// keys to these fields.
#ifndef LONGSPAN_RUNTIME_TRAIN_RUN_CONFIG_H_
#define LONGSPAN_RUNTIME_TRAIN_RUN_CONFIG_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "optim/profile.h"
#include "optim/sampling_rate.h"
#include "runtime/data/dataset.h"

namespace longspan {

// A share of the documents, or a path of its own.
struct ValidationSource {
  double share = 0.005;
  std::string path;
};

// A number of updates, a time, or chosen from what saves cost and how often the job fails.
struct SaveInterval {
  int64_t steps = 0;  // 0: by time
  double seconds = 0;
  bool automatic = false;  // steps and seconds are 0
  bool off() const { return steps == 0 && seconds == 0 && !automatic; }
};

// How many ranks may split the heads of attention between them.
struct HeadLimit {
  int64_t ranks = 0;  // at most; 1: none do
  bool automatic() const { return ranks == 0; }
};

struct RunConfig {
  struct Run {
    std::string name = "quickstart";
    std::string directory = "runs";
    int64_t seed = 1;
    int64_t steps = 200;
    std::string device = "auto";
    int64_t threads = 0;
    bool deterministic = false;
    std::string on_nonfinite = "stop";
    int64_t nccl_timeout = 1200;  // seconds
  } run;
  struct Data {
    std::vector<DataSource> sources;
    ValidationSource validation;
    int64_t max_length = 65536;
    std::string long_documents = "cut";
  } data;
  struct Model {
    std::string family = "llama";
    int64_t layers = 6;
    int64_t width = 384;
    int64_t heads = 6;
    int64_t kv_heads = 6;
    int64_t ffn = 1024;
    int64_t vocab = 0;
    double rope_base = 10000.0;
    bool tie_embeddings = false;
    std::string init = "random";
  } model;
  struct Attention {
    int64_t window = 0;
    std::string wire = "f32";
    HeadLimit head_parallel;
  } attention;
  struct Batch {
    int64_t tokens = 65536;
    int64_t micro_batch_tokens = 8192;
  } batch;
  struct Optimizer {
    std::string kind = "adamw";
    std::array<double, 2> betas = {0.9, 0.95};
    double eps = 1e-8;
    double momentum = 0.9;
    double weight_decay = 0.1;
    double clip = 1.0;
    std::string wire = "f32";
  } optimizer;
  struct ScheduleKeys {
    std::string kind = "linear";
    double peak = 6e-4;
    double warmup = 0.02;
    double floor = 0.0;
    SamplingRate sampling;
    ProfileParameters profile;
    std::string file;           // of kind "table"
    std::string from;           // of kind "refined": the folder of an earlier run
    std::string norm = "auto";  // of kind "refined"
    double filter = 0.1, blend = 1.0;
    std::string on_budget_change = "refuse";
  } schedule;
  struct PlannerKeys {
    std::string policy = "skyline";
    std::string cost = "fixed";
    int64_t ranks_per_node = 0;
  } planner;
  struct Checkpoint {
    SaveInterval interval{50};
    int64_t keep_last = 3;
    int64_t keep_every = 0;
    std::string mode = "lazy";
    std::string when_busy = "wait";
    int64_t in_flight = 2;
    int64_t pool = 0;          // MiB
    int64_t timeout = 600;     // seconds
    int64_t max_failures = 0;  // in a row
    double mtbf = 50000.0;     // hours a node
    std::string storage = "auto";
    // Nearer places, each off unless it has an interval; see checkpoint/tiers.h.
    struct Tier {
      SaveInterval interval;
      std::string directory;  // below it, a directory of the run's own
      int64_t keep = 1;
      int64_t keep_every = 0;
      bool partner = false;
      std::string erasure;  // "4+1"; empty: none
    };
    Tier memory{.directory = "/dev/shm"};
    Tier local;
  } checkpoint;
  struct Metrics {
    int64_t every = 1;
    int64_t evaluate_every = 100;
    int64_t evaluate_tokens = 131072;
  } metrics;
};

// One key with its effective value, as it is shown, stored in checkpoints and compared on resume.
struct ConfigEntry {
  std::string key;     // "model.width"
  std::string value;   // as TOML text
  std::string origin;  // "default", "train.toml:12", "--set"
  // Changing it would make a different model, different data or another order: refused on resume.
  bool fixed = false;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_TRAIN_RUN_CONFIG_H_
