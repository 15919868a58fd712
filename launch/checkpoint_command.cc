#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/tiers.h"
#include "launch/checkpoint_reader.h"
#include "launch/command_line.h"
#include "launch/commands.h"
#include "launch/model_exchange.h"
#include "nlohmann/json.hpp"
#include "parallel/transport/mpi_transport.h"
#include "parallel/transport/rank_threads.h"
#include "runtime/metrics/run_log.h"
#include "runtime/train/agreement.h"

namespace longspan {
namespace {

struct Options {
  std::string path;
  std::string other;  // of diff: the second one; of export and import: where to
  int64_t shard_mib = 4096;
  bool json = false;
};

// Checkpoints of a run's folder, newest first, or the one of a step directory.
absl::StatusOr<std::vector<CheckpointInfo>> Find(const std::string& path,
                                                 std::vector<std::string>* skipped) {
  FileSystem& files = PosixFileSystem();
  if (files.Exists(path + "/checkpoints"))
    return ListCheckpoints(files, path + "/checkpoints", skipped);
  absl::StatusOr<CheckpointInfo> one = ReadCheckpointInfo(files, path);
  if (!one.ok()) return one.status();
  return std::vector<CheckpointInfo>{*std::move(one)};
}

// A step in one place: the checkpoint directory, or a tier's directory on this node.
struct Copy {
  CheckpointInfo info;
  bool in_tier = false;
  std::vector<std::string> elsewhere;  // files that are on other nodes
};

absl::StatusOr<Copy> CopyIn(const std::string& directory, bool in_tier) {
  Copy copy;
  copy.in_tier = in_tier;
  absl::StatusOr<CheckpointInfo> info =
      ReadCheckpointInfo(PosixFileSystem(), directory, in_tier ? &copy.elsewhere : nullptr);
  if (!info.ok()) return info.status();
  copy.info = *std::move(info);
  return copy;
}

// Newest first, the checkpoint directory's before tiers'; or the one of a step directory. An error
// if there is none.
absl::StatusOr<std::vector<Copy>> Copies(const std::string& path) {
  FileSystem& files = PosixFileSystem();
  std::vector<Copy> copies;
  if (!files.Exists(path + "/checkpoints")) {
    absl::StatusOr<Copy> one = CopyIn(path, InTier(path));
    if (!one.ok()) return one.status();
    copies.push_back(*std::move(one));
    return copies;
  }
  absl::StatusOr<std::vector<CheckpointInfo>> shared = Find(path, nullptr);
  if (!shared.ok()) return shared.status();
  for (CheckpointInfo& info : *shared) copies.push_back({std::move(info), false, {}});
  absl::StatusOr<std::vector<TierListing>> tiers = ListTiers(files, path + "/checkpoints");
  if (!tiers.ok()) return tiers.status();
  for (const TierListing& listing : *tiers) {
    absl::StatusOr<Copy> copy = CopyIn(listing.info.directory, /*in_tier=*/true);
    if (!copy.ok()) return copy.status();
    copies.push_back(*std::move(copy));
  }
  if (copies.empty()) return absl::NotFoundError(absl::StrCat(path, ": no committed checkpoint"));
  std::stable_sort(copies.begin(), copies.end(), [](const Copy& a, const Copy& b) {
    return std::pair(a.info.generation, a.info.step) > std::pair(b.info.generation, b.info.step);
  });
  return copies;
}

// Runs `body` on every rank that a launcher started; else on this process as the only one. `body`
// returns the same on all ranks, and one of them prints it.
absl::Status OnRanks(int* argc, char*** argv, const std::function<absl::Status(Transport&)>& body) {
  if (!LaunchedUnderMpi()) {
    absl::Status status;
    const absl::Status ran = RunRanks(1, [&](Transport& transport, Device&) {
      status = body(transport);
      return absl::OkStatus();
    });
    return ran.ok() ? status : ran;
  }
  absl::StatusOr<std::unique_ptr<Transport>> transport = OpenMpiTransport(argc, argv);
  if (!transport.ok()) return transport.status();
  const absl::Status status = body(**transport);
  return status.ok() || (*transport)->rank() == 0 ? status : absl::Status(status.code(), "");
}

std::string NameOf(const CheckpointTensor& tensor) {
  return absl::StrCat(tensor.group, "/", tensor.tensor);
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("(", absl::StrJoin(shape, ", "), ")");
}

// A step, and where its copies are.
struct Row {
  CheckpointInfo info;
  std::vector<std::string> places;
  nlohmann::json tiers = nlohmann::json::array();
};

// What this node's tiers have, for the rank that prints. Of one rank of every node.
absl::StatusOr<std::string> TiersHere(const std::string& path) {
  absl::StatusOr<std::vector<TierListing>> tiers =
      ListTiers(PosixFileSystem(), path + "/checkpoints");
  if (!tiers.ok()) return tiers.status();
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  nlohmann::json listings = nlohmann::json::array();
  for (const TierListing& listing : *tiers) {
    const CheckpointInfo& info = listing.info;
    listings.push_back({{"step", info.step},
                        {"generation", info.generation},
                        {"ranks", info.ranks},
                        {"bytes", info.bytes},
                        {"time", info.time},
                        {"tier", listing.tier},
                        {"host", host},
                        {"directory", info.directory},
                        {"files_here", listing.files_here},
                        {"parity_here", listing.parity_here}});
  }
  return listings.dump();
}

// Newest first: of the checkpoint directory and of the nodes' tiers, as TiersHere told them.
absl::StatusOr<std::vector<Row>> Rows(const std::string& path,
                                      const std::vector<std::string>& tiers, bool one_node,
                                      std::vector<std::string>* skipped) {
  absl::StatusOr<std::vector<CheckpointInfo>> found = Find(path, skipped);
  if (!found.ok()) return found.status();
  std::map<std::pair<int64_t, int64_t>, Row, std::greater<>> rows;
  for (const CheckpointInfo& info : *found) {
    Row& row = rows[{info.generation, info.step}];
    row.info = info;
    row.places.push_back(info.directory);
  }
  for (const std::string& text : tiers) {
    for (nlohmann::json listing : nlohmann::json::parse(text)) {
      const std::pair<int64_t, int64_t> key{listing.at("generation"), listing.at("step")};
      Row& row = rows[key];
      if (row.places.empty()) {
        std::tie(row.info.generation, row.info.step) = key;
        row.info.ranks = listing.at("ranks");
        row.info.bytes = listing.at("bytes");
        row.info.time = listing.at("time");
        row.info.directory = listing.at("directory");
      }
      const int parity = listing.at("parity_here");
      row.places.push_back(absl::StrCat(
          listing.at("tier").get<std::string>(), " (", listing.at("files_here").get<int>(), " of ",
          row.info.ranks, " files", parity > 0 ? absl::StrCat(" and ", parity, " of parity") : "",
          " on ", one_node ? "this node" : listing.at("host").get<std::string>(),
          "): ", listing.at("directory").get<std::string>()));
      for (const char* known : {"step", "generation", "ranks", "bytes", "time"}) {
        listing.erase(known);
      }
      row.tiers.push_back(std::move(listing));
    }
  }
  std::vector<Row> sorted;
  for (auto& [key, row] : rows) sorted.push_back(std::move(row));
  return sorted;
}

// By the only rank that prints.
absl::Status PrintRows(const std::vector<Row>& rows, bool json) {
  nlohmann::json array = nlohmann::json::array();
  if (!json)
    std::printf("%10s %10s %6s %12s  %-20s  %s\n", "step", "generation", "ranks", "size",
                "committed (UTC)", "where");
  for (const Row& row : rows) {
    const CheckpointInfo& info = row.info;
    array.push_back({{"step", info.step},
                     {"generation", info.generation},
                     {"ranks", info.ranks},
                     {"bytes", info.bytes},
                     {"time", info.time},
                     {"directory", info.directory},
                     {"tiers", row.tiers}});
    if (!json) {
      std::printf("%10lld %10lld %6d %12s  %-20s  %s\n", static_cast<long long>(info.step),
                  static_cast<long long>(info.generation), info.ranks,
                  ShortBytes(static_cast<double>(info.bytes)).c_str(), info.time.c_str(),
                  absl::StrJoin(row.places, "; ").c_str());
    }
  }
  if (json) std::puts(array.dump(2).c_str());
  return absl::OkStatus();
}

absl::Status List(const Options& options, Transport& transport) {
  const absl::StatusOr<std::vector<int>> nodes = NodesByHost(transport);
  if (!nodes.ok()) return nodes.status();
  const auto first = std::find(nodes->begin(), nodes->end(), (*nodes)[transport.rank()]);
  absl::StatusOr<std::string> mine = "[]";
  if (first - nodes->begin() == transport.rank()) mine = TiersHere(options.path);
  if (absl::Status status = Agree(transport, mine.status()); !status.ok()) return status;
  const absl::StatusOr<std::vector<std::string>> tiers = transport.AllGatherBytes(*mine);
  if (!tiers.ok()) return tiers.status();
  absl::Status status;
  if (transport.rank() == 0) {
    std::vector<std::string> skipped;
    const bool one_node = *std::max_element(nodes->begin(), nodes->end()) == 0;
    absl::StatusOr<std::vector<Row>> rows = Rows(options.path, *tiers, one_node, &skipped);
    status = rows.status();
    for (const std::string& line : skipped) {
      std::fprintf(stderr, "not committed: %s\n", line.c_str());
    }
    if (rows.ok()) status = PrintRows(*rows, options.json);
  }
  return Agree(transport, status);
}

absl::Status Show(const Options& options) {
  absl::StatusOr<std::vector<Copy>> copies = Copies(options.path);
  if (!copies.ok()) return copies.status();
  const CheckpointInfo* info = &copies->front().info;
  absl::StatusOr<std::vector<CheckpointTensor>> tensors = ListTensors(PosixFileSystem(), *info);
  if (!tensors.ok()) return tensors.status();
  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const CheckpointTensor& tensor : *tensors) {
      list.push_back({{"group", tensor.group},
                      {"tensor", tensor.tensor},
                      {"dtype", Name(tensor.dtype)},
                      {"shape", tensor.global_shape},
                      {"crc64", absl::StrFormat("%016x", tensor.crc64)}});
    }
    const nlohmann::json object = {
        {"step", info->step},           {"generation", info->generation},
        {"ranks", info->ranks},         {"bytes", info->bytes},
        {"time", info->time},           {"run_id", info->run_id},
        {"directory", info->directory}, {"run", nlohmann::json::parse(info->metadata)},
        {"tensors", std::move(list)}};
    std::puts(object.dump(2).c_str());
    return absl::OkStatus();
  }
  std::printf("step %lld of run \"%s\", generation %lld, by %d %s, %s, committed %s\n%s\n",
              static_cast<long long>(info->step), info->run_id.c_str(),
              static_cast<long long>(info->generation), info->ranks,
              info->ranks == 1 ? "rank" : "ranks",
              ShortBytes(static_cast<double>(info->bytes)).c_str(), info->time.c_str(),
              info->directory.c_str());
  size_t width = 0;
  for (const CheckpointTensor& tensor : *tensors) width = std::max(width, NameOf(tensor).size());
  for (const CheckpointTensor& tensor : *tensors) {
    std::printf("%-*s  %-4s  %016llx  %s\n", static_cast<int>(width), NameOf(tensor).c_str(),
                Name(tensor.dtype), static_cast<unsigned long long>(tensor.crc64),
                ShapeText(tensor.global_shape).c_str());
  }
  return absl::OkStatus();
}

absl::Status Verify(const Options& options) {
  absl::StatusOr<std::vector<Copy>> copies = Copies(options.path);
  if (!copies.ok()) return copies.status();
  for (Copy& copy : *copies) {
    if (absl::Status status = VerifyCheckpoint(PosixFileSystem(), copy.info,
                                               copy.in_tier ? &copy.elsewhere : nullptr);
        !status.ok())
      return status;
    if (copy.elsewhere.empty()) {
      std::printf("%s: every byte verified\n", copy.info.directory.c_str());
    } else {
      std::printf("%s: every byte of %zu of %d files verified; not on this node: %s\n",
                  copy.info.directory.c_str(), copy.info.ranks - copy.elsewhere.size(),
                  copy.info.ranks, absl::StrJoin(copy.elsewhere, ", ").c_str());
    }
  }
  return absl::OkStatus();
}

// A whole f32 tensor.
absl::StatusOr<std::vector<float>> Read(CheckpointReader& reader, const CheckpointTensor& tensor) {
  int64_t elements = 1;
  for (int64_t dim : tensor.global_shape) elements *= dim;
  std::vector<float> values(static_cast<size_t>(elements));
  const absl::Status status = reader.Read({{tensor.group, tensor.tensor, tensor.dtype,
                                            tensor.global_shape, 0, elements, values.data()}});
  if (!status.ok()) return status;
  return values;
}

// What a tensor that both have differs in; "" if in nothing.
absl::StatusOr<std::string> Difference(CheckpointReader& reader_a, const CheckpointTensor& a,
                                       CheckpointReader& reader_b, const CheckpointTensor& b) {
  if (a.dtype != b.dtype || a.global_shape != b.global_shape) {
    return absl::StrCat(Name(a.dtype), " ", ShapeText(a.global_shape), " against ", Name(b.dtype),
                        " ", ShapeText(b.global_shape));
  }
  if (a.crc64 == b.crc64) return std::string();
  if (a.dtype != DType::kF32) return std::string("other bytes");
  absl::StatusOr<std::vector<float>> values_a = Read(reader_a, a), values_b = Read(reader_b, b);
  if (!values_a.ok()) return values_a.status();
  if (!values_b.ok()) return values_b.status();
  int64_t different = 0;
  double largest = 0;
  for (size_t i = 0; i < values_a->size(); ++i) {
    const float x = (*values_a)[i], y = (*values_b)[i];
    if (x == y) continue;
    ++different;
    largest = std::max(largest, std::abs(static_cast<double>(x) - static_cast<double>(y)));
  }
  return absl::StrFormat("%d of %d elements differ, by %.3g at most", different, values_a->size(),
                         largest);
}

// By the only rank that prints.
absl::Status PrintDifferences(CheckpointReader& first, CheckpointReader& second, bool json) {
  std::map<std::string, CheckpointTensor> tensors[2];
  for (const CheckpointTensor& tensor : first.tensors()) tensors[0][NameOf(tensor)] = tensor;
  for (const CheckpointTensor& tensor : second.tensors()) tensors[1][NameOf(tensor)] = tensor;
  std::map<std::string, std::string> differences;
  for (const auto& [name, tensor] : tensors[1]) {
    if (tensors[0].count(name) == 0) differences[name] = "only in the second";
  }
  for (const auto& [name, tensor] : tensors[0]) {
    const auto other = tensors[1].find(name);
    if (other == tensors[1].end()) {
      differences[name] = "only in the first";
      continue;
    }
    absl::StatusOr<std::string> difference = Difference(first, tensor, second, other->second);
    if (!difference.ok()) return difference.status();
    if (!difference->empty()) differences[name] = *difference;
  }
  if (json) {
    const nlohmann::json object = {{"first", first.info().directory},
                                   {"second", second.info().directory},
                                   {"tensors", tensors[0].size()},
                                   {"differences", differences}};
    std::puts(object.dump(2).c_str());
  } else {
    for (const auto& [name, difference] : differences)
      std::printf("%s: %s\n", name.c_str(), difference.c_str());
    if (differences.empty()) std::printf("the same %zu tensors\n", tensors[0].size());
  }
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(differences.size(), " tensors differ between step ", first.info().step,
                   " and step ", second.info().step));
}

absl::Status Diff(const Options& options, Transport& transport) {
  absl::StatusOr<std::unique_ptr<CheckpointReader>> first =
      CheckpointReader::Open(options.path, transport);
  if (!first.ok()) return first.status();
  absl::StatusOr<std::unique_ptr<CheckpointReader>> second =
      CheckpointReader::Open(options.other, transport);
  if (!second.ok()) return second.status();
  return LeadReads({first->get(), second->get()}, transport,
                   [&] { return PrintDifferences(**first, **second, options.json); });
}

absl::Status Export(const Options& options, Transport& transport) {
  absl::StatusOr<std::unique_ptr<CheckpointReader>> reader =
      CheckpointReader::Open(options.path, transport);
  if (!reader.ok()) return reader.status();
  CheckpointReader& checkpoint = **reader;
  return LeadReads({&checkpoint}, transport, [&] {
    const absl::Status status = ExportModel(
        checkpoint.info().metadata,
        [&](const std::vector<StateRegion>& regions) { return checkpoint.Read(regions); },
        checkpoint.tokenizer(), options.other, options.shard_mib << 20);
    if (status.ok()) {
      std::printf("%s: the model of step %lld\n", options.other.c_str(),
                  static_cast<long long>(checkpoint.info().step));
    }
    return status;
  });
}

absl::Status Import(const Options& options) {
  if (absl::Status status = ImportModel(options.path, options.other); !status.ok()) return status;
  std::printf("%s: the model of %s\n", options.other.c_str(), options.path.c_str());
  return absl::OkStatus();
}

}  // namespace

void RegisterCheckpointCommand(const Command& root, SelectedCommand* selected, int* argc,
                               char*** argv) {
  const Command checkpoint =
      root.AddCommand("checkpoint", "List, show, verify, compare and convert checkpoints");
  checkpoint.RequireCommand();
  checkpoint.Footer(
      "Under mpirun, with a rank on each node, list shows and diff and export take what other "
      "nodes "
      "have, too.");
  const char* kCheckpoint =
      "a run's folder (its newest checkpoint, of this node's tiers too), or one checkpoint's "
      "directory";
  const auto add = [&](const char* name, const char* help, const char* example,
                       const std::function<absl::Status(const Options&)>& run) {
    auto options = std::make_shared<Options>();
    const Command command = checkpoint.AddCommand(name, help);
    command.Footer(absl::StrCat("Example:\n  longspan checkpoint ", name, " ", example));
    command.OnChosen(
        [selected, options, run] { *selected = [options, run] { return run(*options); }; });
    return std::make_pair(command, options);
  };
  const auto on_ranks = [argc, argv](absl::Status (*run)(const Options&, Transport&)) {
    return [argc, argv, run](const Options& options) {
      return OnRanks(argc, argv, [&](Transport& transport) { return run(options, transport); });
    };
  };
  const auto [list, list_options] =
      add("list", "Committed checkpoints, newest first", "runs/quickstart", on_ranks(List));
  list.AddOption("RUN", list_options->path, "a run's folder, or one checkpoint's directory")
      .Required();
  list.AddFlag("--json", list_options->json, "as JSON");

  const auto [show, show_options] = add(
      "show", "What a checkpoint holds: its tensors and their checksums", "runs/quickstart", Show);
  show.AddOption("CHECKPOINT", show_options->path, kCheckpoint).Required();
  show.AddFlag("--json", show_options->json, "as JSON, with the run's state");

  const auto [verify, verify_options] =
      add("verify", "Read every byte and compare with the manifest", "runs/quickstart", Verify);
  verify
      .AddOption("RUN", verify_options->path,
                 "a run's folder (all checkpoints, of this node's tiers too), or one "
                 "checkpoint's directory")
      .Required();

  const auto [diff, diff_options] =
      add("diff", "Compare two checkpoints, tensor by tensor; fails where they differ",
          "runs/a runs/b/checkpoints/step-00000200.g0001", on_ranks(Diff));
  diff.AddOption("FIRST", diff_options->path, kCheckpoint).Required();
  diff.AddOption("SECOND", diff_options->other, kCheckpoint).Required();
  diff.AddFlag("--json", diff_options->json, "as JSON");

  const auto [to, to_options] =
      add("export", "Write the model as Hugging Face safetensors with config.json",
          "runs/quickstart --out model", on_ranks(Export));
  to.AddOption("CHECKPOINT", to_options->path, kCheckpoint).Required();
  to.AddOption("--out", to_options->other, "the directory to make").Required();
  to.AddOption("--shard", to_options->shard_mib,
               "MiB that one file holds at most; several files have an index")
      .InRange(1, 1 << 20)
      .ShowDefault();

  const auto [from, from_options] =
      add("import", "Make a run's folder with a Hugging Face model as its checkpoint of step 0",
          "model --out runs/imported", Import);
  from.AddOption("DIRECTORY", from_options->path, "config.json and safetensors").Required();
  from.AddOption("--out", from_options->other, "the run's folder to make").Required();
}

}  // namespace longspan
