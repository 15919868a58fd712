// A saving job under mpirun that kills one of its ranks, for mpi_kills.sh.
//
//   faults_kill_program run DIRECTORY MODE SAVES [POINT]
//       one attempt; each rank appends "process ID", "reported STEP" and, where no node takes it
//       along, "kept STEP" to DIRECTORY/../rank-N.txt, and on LONGSPAN_LABELS=1 its operations'
//       labels to labels-N.txt
//   faults_kill_program points DIRECTORY RANKS             every point of the labels, a line each
//   faults_kill_program check DIRECTORY MODE RANKS LEAST   prints the newest step; fails if it is
//       below LEAST, or anything is not whole
//   faults_kill_program lose DIRECTORY MODE RANK           the rank's node loses all that it has
//
// MODE: SYNCHRONOUS and LAZY save to DIRECTORY; COPIES to memory of two nodes with copies; PARITY
// to memory of three nodes with parity, and to a disk of each. Ranks are on these nodes in turn.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <mutex>
#include <set>

#include "absl/strings/str_cat.h"
#include "checkpoint/storage.h"
#include "kill_point.h"
#include "parallel/transport/mpi_transport.h"
#include "saving_job.h"

namespace longspan {
namespace {

// Appends a line in one write, so that a killed process leaves whole lines.
void Append(const std::string& path, const std::string& line) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0 || write(file, line.data(), line.size()) < 0) std::perror(path.c_str());
  close(file);
}

// Before mpi_kills.sh runs out of patience, a rank that hangs says where it stands and ends.
constexpr unsigned kPatience = 50;  // seconds
char where[128] = "a rank that has made no file operation";

void SayWhere(int) {
  const char text[] = ": it did not end in time; this was its last operation\n";
  if (write(STDERR_FILENO, where, strlen(where)) < 0 ||
      write(STDERR_FILENO, text, sizeof(text) - 1) < 0) {
    _exit(4);
  }
  _exit(3);
}

// For `ranks` ranks.
SavingJob JobOf(const std::string& directory, const std::string& mode, int ranks) {
  SavingJob job;
  job.directory = directory;
  job.mode = mode == "SYNCHRONOUS" ? SaveMode::kSynchronous : SaveMode::kLazy;
  int nodes = 1;
  if (mode == "COPIES") {
    nodes = 2;
    job.tiers = {{"memory", 1, 1, true}};
  } else if (mode == "PARITY") {
    nodes = 3;
    job.tiers = {{"memory", 1, 1, false, {2, 1}}, {"local", 2, 1}};
  }
  if (job.tiers.empty()) return job;
  job.every = 0;
  for (int rank = 0; rank < ranks; ++rank) job.nodes.push_back(rank % nodes);
  return job;
}

int Run(int argc, char** argv) {
  signal(SIGALRM, SayWhere);
  alarm(kPatience);
  absl::StatusOr<std::unique_ptr<Transport>> transport = OpenMpiTransport(&argc, &argv);
  if (!transport.ok()) {
    std::cerr << transport.status() << "\n";
    return 1;
  }
  SavingJob job = JobOf(argv[2], argv[3], (*transport)->size());
  job.saves = std::atoll(argv[4]);
  KillPoint point;
  if (argc > 5 && !KillPoint::Parse(argv[5], point)) {
    (*transport)->Abort(absl::StrCat("no kill point: ", argv[5]));
  }
  const int rank = (*transport)->rank();
  const std::string folder = job.directory.substr(0, job.directory.rfind('/'));
  const std::string notes = absl::StrCat(folder, "/rank-", rank, ".txt");
  if (!job.nodes.empty()) std::filesystem::create_directories(NodeFolder(job, job.nodes[rank]));
  Append(notes, absl::StrCat("process ", getpid(), "\n"));
  const bool labels = std::getenv("LONGSPAN_LABELS") != nullptr;
  std::mutex mutex;  // a rank's operations come from several threads
  KillWatcher watcher(point, rank, [&](const FileOperation& operation) {
    const std::lock_guard lock(mutex);
    std::snprintf(where, sizeof(where), "rank %d, %s", rank, operation.text().c_str());
    if (labels) Append(absl::StrCat(folder, "/labels-", rank, ".txt"), operation.label() + "\n");
  });
  auto storage = OpenStorage();
  if (!storage.ok()) (*transport)->Abort("no storage");
  WatchedFiles files(**storage, watcher);
  MemoryTable memory;
  const absl::Status status =
      RunSavingJob(job, files, memory, **transport,
                   {[&](const JobStart& start) {
                      if (rank == 0)
                        std::printf("resumed from %lld\n", static_cast<long long>(start.step));
                    },
                    [&](const std::string& tier, int64_t step, const absl::Status& saved,
                        const SaveReport& report) {
                      if (!saved.ok()) {
                        std::cerr << "rank " << rank << ": " << saved << "\n";
                        return;
                      }
                      // A warning of a tier says that a node lacks the commit record.
                      if (!tier.empty() && !report.warnings.empty()) return;
                      Append(notes, absl::StrCat("reported ", step, "\n"));
                      if (tier != "local") Append(notes, absl::StrCat("kept ", step, "\n"));
                    }});
  if (!status.ok()) {
    std::cerr << "rank " << rank << ": " << status << "\n";
    (*transport)->Abort("failed");
  }
  return 0;
}

int Points(const std::string& folder, int ranks) {
  std::vector<std::vector<std::string>> labels(static_cast<size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    std::ifstream file(absl::StrCat(folder, "/labels-", rank, ".txt"));
    for (std::string line; std::getline(file, line);) labels[rank].push_back(line);
  }
  for (const KillPoint& point : AllKillPoints(labels)) std::printf("%s\n", point.text().c_str());
  return 0;
}

int Check(const SavingJob& job, int ranks, int64_t least) {
  std::string problem;
  int64_t newest = CheckCheckpoints(PosixFileSystem(), job.directory, ranks, 1, problem);
  if (!job.tiers.empty()) {
    const int nodes = *std::max_element(job.nodes.begin(), job.nodes.end()) + 1;
    const std::set<int64_t> whole = CheckTiers(PosixFileSystem(), job, nodes, problem);
    if (!whole.empty()) newest = std::max(newest, *whole.rbegin());
  }
  std::printf("%lld\n", static_cast<long long>(newest));
  if (newest < least) problem += "an older step than what was reported\n";
  std::cerr << problem;
  return problem.empty() ? 0 : 1;
}

int Lose(const SavingJob& job, int rank) {
  const std::string node = NodeFolder(job, job.nodes[rank]);
  return std::filesystem::remove_all(node) > 0 ? 0 : 1;
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "run" && argc >= 5) return longspan::Run(argc, argv);
  if (what == "points" && argc == 4) return longspan::Points(argv[2], std::atoi(argv[3]));
  if (what == "check" && argc == 6) {
    const int ranks = std::atoi(argv[4]);
    return longspan::Check(longspan::JobOf(argv[2], argv[3], ranks), ranks, std::atoll(argv[5]));
  }
  if (what == "lose" && argc == 5) {
    const int rank = std::atoi(argv[4]);
    return longspan::Lose(longspan::JobOf(argv[2], argv[3], rank + 1), rank);
  }
  std::fprintf(stderr, "see kill_program.cc\n");
  return 2;
}
