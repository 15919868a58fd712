#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "launch/command_line.h"
#include "launch/commands.h"
#include "launch/config.h"
#include "launch/device_choice.h"
#include "parallel/transport/mpi_transport.h"
#include "parallel/transport/peer_watch.h"
#include "parallel/transport/rank_threads.h"
#include "runtime/train/agreement.h"
#include "runtime/train/dry_run.h"
#include "runtime/train/trainer.h"

namespace longspan {
namespace {

constexpr char kFooter[] =
    "Examples:\n"
    "  longspan train my.toml                                   one rank, all cores\n"
    "  longspan train my.toml --ranks 4                         four ranks as threads of one "
    "process\n"
    "  mpirun -n 2 --bind-to none longspan train my.toml        two ranks under MPI\n"
    "  mpirun -n 2 --bind-to none longspan train my.toml --resume auto\n"
    "  longspan train my.toml --trace runs/my/traces/first.json what every rank did, and when\n"
    "  longspan train my.toml --schedule refined --from runs/first\n"
    "  longspan train my.toml --dry-run --ranks 512             sizes, plans and traffic of 512 "
    "ranks\n"
    "SIGUSR1, SIGTERM and SIGINT finish the step, commit and exit 0.";

struct Options {
  std::string config;
  std::vector<std::string> sets;
  std::string schedule, from;
  std::string resume;
  int64_t stop_after = 0;
  TraceOptions trace;
  std::string trace_steps;
  int ranks = 0;
  bool dry_run = false;
  bool json = false;
};

std::atomic<bool> stop_requested{false};

void RequestStop(int) { stop_requested = true; }

void CatchStopSignals() {
  struct sigaction action = {};
  action.sa_handler = RequestStop;
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
}

int CoresAllowed() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

// Compute threads of a rank, or what is wrong with its affinity mask.
absl::StatusOr<int> ThreadsOf(int64_t configured, int ranks_here) {
  const int allowed = CoresAllowed(), online = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  const int wanted =
      configured > 0 ? static_cast<int>(configured) : std::max(1, online / ranks_here);
  if (wanted > allowed && allowed < online) {
    return absl::FailedPreconditionError(absl::StrCat(
        wanted, " threads a rank, but this process may use only ", allowed, " of ", online,
        " cores: start mpirun with --bind-to none, or set run.threads to ", allowed));
  }
  return wanted;
}

// "3:7", or "5:5"; "" leaves `trace` as it is.
absl::Status ParseTraceSteps(const std::string& text, TraceOptions& trace) {
  if (text.empty()) return absl::OkStatus();
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &trace.from_step) ||
      !absl::SimpleAtoi(parts[1], &trace.to_step) || trace.from_step < 1 ||
      trace.to_step < trace.from_step) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--trace-steps ", text, ": it must be FROM:TO, steps counted from 1, such as 20:29"));
  }
  return absl::OkStatus();
}

// What to type to go on: the launcher's part is not known here, so it is named.
std::string ResumeCommand(const Options& options, const Transport& transport) {
  std::vector<std::string> words;
  if (LaunchedUnderMpi())
    words.push_back(absl::StrCat("mpirun -n ", transport.size(), " --bind-to none"));
  words.push_back("longspan train " + options.config);
  for (const std::string& set : options.sets) words.push_back("--set '" + set + "'");
  if (!LaunchedUnderMpi() && transport.size() > 1)
    words.push_back(absl::StrCat("--ranks ", transport.size()));
  words.push_back("--resume auto");
  return absl::StrJoin(words, " ");
}

class TrainCommand {
 public:
  TrainCommand(const Options& options, int* argc, char*** argv)
      : options_(options), argc_(argc), argv_(argv) {}

  absl::Status Run() {
    if (options_.dry_run) return PrintDryRun();
    return LaunchedUnderMpi() ? RunUnderMpi() : RunAsThreads();
  }

 private:
  absl::Status PrintDryRun() {
    absl::StatusOr<LoadedConfig> config = LoadConfig(options_.config, options_.sets);
    if (!config.ok()) return config.status();
    const std::string& wanted = config->values.run.device;
    DeviceKind device = DeviceKind::kCuda;
    // A run on another machine's GPUs says so; "auto" means this one's.
    if (wanted != "cuda") {
      const absl::StatusOr<DeviceChoice> choice = OpenDevice(wanted, /*rank_on_node=*/0, 1);
      if (!choice.ok()) return choice.status();
      device = choice->device->kind();
    }
    absl::StatusOr<std::string> text =
        DryRun(config->values, std::max(1, options_.ranks), device, options_.json);
    if (!text.ok()) return text.status();
    std::fputs(text->c_str(), stdout);
    return absl::OkStatus();
  }

  absl::Status RunUnderMpi() {
    absl::StatusOr<std::unique_ptr<Transport>> transport = OpenMpiTransport(argc_, argv_);
    if (!transport.ok()) return transport.status();
    absl::StatusOr<std::unique_ptr<PeerWatch>> watch =
        PeerWatch::Start(**transport, [](int rank, bool lowest) {
          if (lowest) {
            std::fprintf(stderr,
                         "longspan: rank %d ended early, so the job ends; what is committed stays: "
                         "continue with --resume auto\n",
                         rank);
          }
          // Other threads wait for a peer that will never answer: nothing can be ended in order.
          _exit(1);
        });
    if (!watch.ok()) return watch.status();
    // Not before: while ranks still find each other, a SIGTERM from mpirun means that one has died.
    CatchStopSignals();
    absl::StatusOr<Prepared> prepared = Prepare((*transport)->ranks_on_node());
    if (options_.ranks > 0) {
      prepared = absl::InvalidArgumentError(
          "--ranks makes threads of one process; under mpirun the ranks come from mpirun -n");
    }
    absl::Status status = Agree(**transport, prepared.status());
    if (status.ok()) {
      status = RunOnDevice(
          prepared->config.values.run.device, prepared->threads, **transport,
          {.timeout = absl::Seconds(prepared->config.values.run.nccl_timeout)},
          [&](Transport& between, Device& device) { return RunRank(*prepared, between, device); });
    }
    // Errors that all ranks have are printed by one; others have been printed by on_fatal.
    if (status.ok() || (IsAgreed(status) && (*transport)->rank() == 0)) return status;
    return absl::Status(status.code(), "");
  }

  absl::Status RunAsThreads() {
    CatchStopSignals();
    const int ranks = std::max(1, options_.ranks);
    absl::StatusOr<Prepared> prepared = Prepare(ranks);
    if (!prepared.ok()) return prepared.status();
    RankThreadOptions threads;
    threads.open_device = [&](int rank) -> absl::StatusOr<std::unique_ptr<Device>> {
      absl::StatusOr<DeviceChoice> choice =
          OpenDevice(prepared->config.values.run.device, rank, prepared->threads);
      if (!choice.ok()) return choice.status();
      if (rank == 0) SayWhyCpu(*choice);
      return std::move(choice->device);
    };
    absl::Status agreed;  // written by rank 0
    const absl::Status status = RunRanks(
        ranks,
        [&](Transport& transport, Device& device) {
          absl::Status mine = RunRank(*prepared, transport, device);
          if (!IsAgreed(mine)) return mine;
          if (transport.rank() == 0) agreed = std::move(mine);
          return absl::OkStatus();
        },
        threads);
    if (!agreed.ok()) return agreed;
    return fatal_printed_ && !status.ok() ? absl::Status(status.code(), "") : status;
  }

  struct Prepared {
    LoadedConfig config;
    int threads = 1;  // a rank
  };

  absl::StatusOr<Prepared> Prepare(int ranks_here) const {
    absl::StatusOr<LoadedConfig> config = LoadConfig(options_.config, options_.sets);
    if (!config.ok()) return config.status();
    absl::StatusOr<int> threads = ThreadsOf(config->values.run.threads, ranks_here);
    if (!threads.ok()) return threads.status();
    return Prepared{*std::move(config), *threads};
  }

  absl::Status RunRank(const Prepared& prepared, Transport& transport, Device& device) {
    TrainRequest request;
    request.config = prepared.config.values;
    request.entries = prepared.config.entries;
    request.config_toml = prepared.config.ToToml();
    request.resume = options_.resume;
    request.stop_after = options_.stop_after;
    request.trace = options_.trace;
    request.resume_command = ResumeCommand(options_, transport);
    request.stop_requested = &stop_requested;
    // Processes that are left say the same of one that has ended.
    const bool last_word = !LaunchedUnderMpi() || transport.size() == 1;
    request.on_fatal = [this, last_word](int rank, const absl::Status& status) {
      // Ranks as threads fail together: the first is the cause.
      if (fatal_printed_.exchange(true)) return;
      std::fprintf(stderr, "longspan: rank %d: %s\n", rank, std::string(status.message()).c_str());
      if (last_word) {
        std::fprintf(stderr, "longspan: what is committed stays: continue with --resume auto\n");
      }
    };
    return Train(request, transport, device);
  }

  const Options& options_;
  int* argc_;
  char*** argv_;
  std::atomic<bool> fatal_printed_{false};
};

}  // namespace

void RegisterTrainCommand(const Command& root, SelectedCommand* selected, int* argc, char*** argv) {
  auto options = std::make_shared<Options>();
  const Command train =
      root.AddCommand("train", "Train a model; under mpirun or srun, as threads, or alone");
  train
      .AddOption("CONFIG", options->config,
                 "configuration file (longspan config defaults prints one)")
      .Required();
  train.AddOption("--set", options->sets, "section.key=value, over the file; repeatable")
      .Repeatable();
  train.AddOption("--schedule", options->schedule,
                  "the learning-rate schedule, over schedule.kind");
  train.AddOption("--from", options->from,
                  "with --schedule refined: the folder of an earlier run of this job");
  train.AddOption(
      "--resume", options->resume,
      "\"auto\": continue from the run's newest checkpoint, or start; or a checkpoint's directory");
  train.AddOption("--stop-after", options->stop_after, "stop and commit after this many updates")
      .Positive();
  train
      .AddOption("--trace", options->trace.file,
                 "write a timeline of every rank, for ui.perfetto.dev and longspan trace summary")
      .ValueName("FILE");
  train
      .AddOption("--trace-steps", options->trace_steps,
                 absl::StrCat("with --trace: which steps of the run, counted from 1 (by default "
                              "the first ",
                              TraceOptions::kDefaultSteps, " of this call)"))
      .ValueName("FROM:TO")
      .Needs("--trace");
  train.AddOption("--ranks", options->ranks, "this many ranks, as threads of one process")
      .InRange(1, 1 << 20);
  train.AddFlag("--dry-run", options->dry_run,
                "plan, sizes and traffic of --ranks ranks; nothing is trained");
  train.AddFlag("--json", options->json, "with --dry-run: as JSON");
  train.Footer(kFooter);
  train.OnChosen([selected, options, argc, argv] {
    if (!options->schedule.empty()) options->sets.push_back("schedule.kind=" + options->schedule);
    const absl::Status steps = ParseTraceSteps(options->trace_steps, options->trace);
    if (!steps.ok()) {
      *selected = [steps] { return steps; };
      return;
    }
    if (!options->from.empty()) options->sets.push_back("schedule.from=" + options->from);
    *selected = [options, argc, argv] { return TrainCommand(*options, argc, argv).Run(); };
  });
}

}  // namespace longspan
