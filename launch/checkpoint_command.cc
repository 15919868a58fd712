#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint.h"
#include "launch/commands.h"
#include "nlohmann/json.hpp"

namespace longspan {
namespace {

struct Options {
  std::string path;
  bool json = false;
};

// Checkpoints of a run's folder, or the one of a step directory.
absl::StatusOr<std::vector<CheckpointInfo>> Find(const std::string& path,
                                                 std::vector<std::string>* skipped) {
  FileSystem& files = PosixFileSystem();
  if (files.Exists(path + "/checkpoints"))
    return ListCheckpoints(files, path + "/checkpoints", skipped);
  absl::StatusOr<CheckpointInfo> one = ReadCheckpointInfo(files, path);
  if (!one.ok()) return one.status();
  return std::vector<CheckpointInfo>{*std::move(one)};
}

absl::Status List(const Options& options) {
  std::vector<std::string> skipped;
  absl::StatusOr<std::vector<CheckpointInfo>> found = Find(options.path, &skipped);
  if (!found.ok()) return found.status();
  for (const std::string& line : skipped) std::fprintf(stderr, "not committed: %s\n", line.c_str());
  nlohmann::json array = nlohmann::json::array();
  if (!options.json) std::printf("%10s %10s %6s  %s\n", "step", "generation", "ranks", "directory");
  for (const CheckpointInfo& info : *found) {
    array.push_back({{"step", info.step},
                     {"generation", info.generation},
                     {"ranks", info.ranks},
                     {"directory", info.directory}});
    if (!options.json) {
      std::printf("%10lld %10lld %6d  %s\n", static_cast<long long>(info.step),
                  static_cast<long long>(info.generation), info.ranks, info.directory.c_str());
    }
  }
  if (options.json) std::puts(array.dump(2).c_str());
  return absl::OkStatus();
}

absl::Status Verify(const Options& options) {
  absl::StatusOr<std::vector<CheckpointInfo>> found = Find(options.path, nullptr);
  if (!found.ok()) return found.status();
  if (found->empty())
    return absl::NotFoundError(absl::StrCat(options.path, ": no committed checkpoint"));
  for (const CheckpointInfo& info : *found) {
    if (absl::Status status = VerifyCheckpoint(PosixFileSystem(), info); !status.ok())
      return status;
    std::printf("%s: every byte verified\n", info.directory.c_str());
  }
  return absl::OkStatus();
}

}  // namespace

void RegisterCheckpointCommand(CLI::App& root, SelectedCommand* selected) {
  CLI::App* checkpoint = root.add_subcommand("checkpoint", "List and verify checkpoints");
  checkpoint->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, absl::Status (*run)(const Options&)) {
    auto options = std::make_shared<Options>();
    CLI::App* command = checkpoint->add_subcommand(name, help);
    command->add_option("RUN", options->path, "a run's folder, or one checkpoint's directory")
        ->required();
    command->footer(absl::StrCat("Example:\n  longspan checkpoint ", name, " runs/quickstart"));
    command->callback(
        [selected, options, run] { *selected = [options, run] { return run(*options); }; });
    return std::make_pair(command, options);
  };
  const auto [list, list_options] = add("list", "Committed checkpoints, newest first", List);
  list->add_flag("--json", list_options->json, "as JSON");
  add("verify", "Read every byte and compare with the manifest", Verify);
}

}  // namespace longspan
