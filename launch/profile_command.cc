// `longspan profile`: measures the cost model of this machine and this MPI job.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/command_line.h"
#include "launch/commands.h"
#include "launch/config.h"
#include "launch/device_choice.h"
#include "parallel/transport/mpi_transport.h"
#include "parallel/transport/rank_threads.h"
#include "runtime/cost/cost_file.h"
#include "runtime/cost/cost_profile.h"
#include "runtime/train/agreement.h"
#include "runtime/train/run_setup.h"

namespace longspan {
namespace {

constexpr char kFooter[] =
    "Examples:\n"
    "  mpirun -n 4 --bind-to none longspan profile my.toml --out cost.json\n"
    "  longspan profile my.toml --ranks 2 --seconds 30 --out cost.json     as threads of one "
    "process\n"
    "  longspan plan --cost cost.json --data data/mine.h5 --ranks 4 --micro-batch-tokens 8192\n"
    "Measure with as many ranks and threads as will train: they share caches and memory.";

struct Options {
  std::string config;
  std::vector<std::string> sets;
  std::string out;
  int ranks = 0;
  double seconds = 90;
};

struct Prepared {
  RunConfig config;
  ProfileRequest request;
  int threads = 1;
};

absl::StatusOr<Prepared> Prepare(const Options& options, int ranks_here) {
  const absl::StatusOr<LoadedConfig> config = LoadConfig(options.config, options.sets);
  if (!config.ok()) return config.status();
  const absl::StatusOr<std::unique_ptr<Dataset>> dataset = OpenDataset(config->values);
  if (!dataset.ok()) return dataset.status();
  absl::StatusOr<ModelConfig> model = ModelOf(config->values, **dataset);
  if (!model.ok()) return model.status();
  Prepared prepared;
  prepared.request.model = *std::move(model);
  prepared.config = config->values;
  prepared.request.micro_batch_tokens = config->values.batch.micro_batch_tokens;
  prepared.request.seconds = options.seconds;
  if (isatty(STDERR_FILENO) != 0) {
    prepared.request.progress = [](double share) {
      std::fprintf(stderr, "\rmeasuring: %3.0f%%%s", 100 * share, share >= 1 ? "\r\033[K" : "");
    };
  }
  const auto online = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  prepared.threads = config->values.run.threads > 0 ? static_cast<int>(config->values.run.threads)
                                                    : std::max(1, online / ranks_here);
  return prepared;
}

std::string Report(const CostProfile& profile) {
  std::string text =
      absl::StrFormat("%6s %10s %12s %12s %8s\n", "ranks", "length", "measured", "fitted", "error");
  for (const CostProfile::Row& row : profile.rows) {
    absl::StrAppendFormat(&text, "%6d %10d %9.2f ms %9.2f ms %+7.1f%%\n", row.members, row.length,
                          1e3 * row.measured_seconds, 1e3 * row.fitted_seconds,
                          100 * (row.fitted_seconds / row.measured_seconds - 1));
  }
  absl::StrAppendFormat(&text, "medians of %d rounds; error: median %.1f%%, worst %.1f%%\n",
                        profile.rounds, 100 * profile.median_error, 100 * profile.worst_error);
  const auto [slowest, fastest] =
      std::minmax_element(profile.measured_speeds.begin(), profile.measured_speeds.end());
  absl::StrAppendFormat(&text, "rank speeds from %.3f to %.3f: %s\n", *slowest, *fastest,
                        profile.cost.rank_speeds.empty() ? "alike, not written" : "written");
  if (profile.measured_speeds.size() == 1) {
    absl::StrAppend(&text, "one rank alone: what rings cost was not measured and is 0\n");
  }
  return text;
}

absl::Status RunRank(const Options& options, const Prepared& prepared, Transport& transport,
                     Device& device) {
  ProfileRequest request = prepared.request;
  request.attention = AttentionOf(prepared.config, device.kind());
  const absl::StatusOr<CostProfile> profile = ProfileCost(request, transport, device);
  if (!profile.ok()) return profile.status();
  absl::Status written;
  if (transport.rank() == 0) {
    std::fputs(Report(*profile).c_str(), stdout);
    written = WriteCostFile(profile->cost, options.out);
    if (written.ok()) std::printf("written to %s\n", options.out.c_str());
  }
  return Agree(transport, written);
}

absl::Status RunUnderMpi(const Options& options, int* argc, char*** argv) {
  absl::StatusOr<std::unique_ptr<Transport>> transport = OpenMpiTransport(argc, argv);
  if (!transport.ok()) return transport.status();
  absl::StatusOr<Prepared> prepared = Prepare(options, (*transport)->ranks_on_node());
  if (options.ranks > 0) {
    prepared = absl::InvalidArgumentError(
        "--ranks makes threads of one process; under mpirun the ranks come from mpirun -n");
  }
  absl::Status status = Agree(**transport, prepared.status());
  if (status.ok()) {
    status = RunOnDevice(prepared->config.run.device, prepared->threads, **transport, {},
                         [&](Transport& between, Device& device) {
                           return RunRank(options, *prepared, between, device);
                         });
  }
  if (status.ok() || (IsAgreed(status) && (*transport)->rank() == 0)) return status;
  if (!IsAgreed(status)) {
    const std::string reason(status.message());
    std::fprintf(stderr, "longspan: rank %d: %s\n", (*transport)->rank(), reason.c_str());
    (*transport)->Abort(reason);
  }
  return absl::Status(status.code(), "");
}

absl::Status RunAsThreads(const Options& options) {
  const int ranks = std::max(1, options.ranks);
  const absl::StatusOr<Prepared> prepared = Prepare(options, ranks);
  if (!prepared.ok()) return prepared.status();
  RankThreadOptions threads;
  threads.open_device = [&](int rank) -> absl::StatusOr<std::unique_ptr<Device>> {
    absl::StatusOr<DeviceChoice> choice =
        OpenDevice(prepared->config.run.device, rank, prepared->threads);
    if (!choice.ok()) return choice.status();
    if (rank == 0) SayWhyCpu(*choice);
    return std::move(choice->device);
  };
  return RunRanks(
      ranks,
      [&](Transport& transport, Device& device) {
        return RunRank(options, *prepared, transport, device);
      },
      threads);
}

}  // namespace

void RegisterProfileCommand(const Command& root, SelectedCommand* selected, int* argc,
                            char*** argv) {
  auto options = std::make_shared<Options>();
  const Command profile = root.AddCommand(
      "profile", "Measure the cost model of this machine and this MPI job, for planning");
  profile.AddOption("CONFIG", options->config, "configuration file: model, data, capacity")
      .Required();
  profile.AddOption("--set", options->sets, "section.key=value, over the file; repeatable")
      .Repeatable();
  profile.AddOption("--out", options->out, "cost file to write").Required();
  profile.AddOption("--ranks", options->ranks, "this many ranks, as threads of one process")
      .InRange(1, 1 << 10);
  profile
      .AddOption("--seconds", options->seconds,
                 "about how long to measure (default 90); more gives longer lengths and rounds")
      .Positive();
  profile.Footer(kFooter);
  profile.OnChosen([selected, options, argc, argv] {
    *selected = [options, argc, argv] {
      return LaunchedUnderMpi() ? RunUnderMpi(*options, argc, argv) : RunAsThreads(*options);
    };
  });
}

}  // namespace longspan
