// The checkpoint library in an MPI program that has nothing to do with transformers: ranks share an
// array, work on it, save it every iteration, and continue from the newest committed state when
// started again, on any number of ranks.
//
//   mpirun -n 3 heat FOLDER 10     iterations 1 to 10
//   mpirun -n 2 heat FOLDER 20     continues with 11
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "parallel/transport/mpi_transport.h"

namespace {

constexpr int64_t kCells = 1000;

absl::Status Run(longspan::Transport& transport, const std::string& folder, int64_t iterations) {
  longspan::FileSystem& files = longspan::PosixFileSystem();
  // This rank's share of the cells, whatever the number of ranks.
  const int64_t begin = kCells * transport.rank() / transport.size();
  const int64_t end = kCells * (transport.rank() + 1) / transport.size();
  std::vector<double> cells(end - begin);
  std::iota(cells.begin(), cells.end(), static_cast<double>(begin));

  // What is to be saved: named ranges of tensors, registered once.
  const std::vector<longspan::StateRegion> state = {
      {"/simulation", "temperature", longspan::DType::kF64, {kCells}, begin, end, cells.data()}};

  // The newest committed state, if any. Other ranks may have written other shares.
  int64_t iteration = 0;
  if (files.Exists(folder)) {
    const auto found = longspan::ListCheckpoints(files, folder);
    if (!found.ok()) return found.status();
    if (!found->empty()) {
      if (absl::Status status = longspan::RestoreRegions(files, found->front(), state);
          !status.ok())
        return status;
      iteration = found->front().step;
      if (transport.rank() == 0)
        std::printf("continued after iteration %lld\n", static_cast<long long>(iteration));
    }
  }

  longspan::CheckpointOptions options;
  options.directory = folder;
  options.run_id = "heat";
  auto writer = longspan::CheckpointWriter::Open(files, options, transport);
  if (!writer.ok()) return writer.status();
  while (iteration < iterations) {
    for (double& cell : cells) cell = 0.5 * cell + 1.0;
    ++iteration;
    const auto report = (*writer)->Save(iteration, state, "{}");
    if (!report.ok()) return report.status();
  }
  const double sum = std::accumulate(cells.begin(), cells.end(), 0.0);
  std::printf("rank %d: iteration %lld, sum of cells %lld to %lld is %.12g\n", transport.rank(),
              static_cast<long long>(iteration), static_cast<long long>(begin),
              static_cast<long long>(end), sum);
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: heat FOLDER ITERATIONS\n");
    return 2;
  }
  auto transport = longspan::OpenMpiTransport(&argc, &argv);
  if (!transport.ok()) {
    std::fprintf(stderr, "heat: %s\n", transport.status().ToString().c_str());
    return 1;
  }
  const absl::Status status = Run(**transport, argv[1], std::atoll(argv[2]));
  if (status.ok()) return 0;
  std::fprintf(stderr, "heat: rank %d: %s\n", (*transport)->rank(), status.ToString().c_str());
  (*transport)->Abort("failed");
  return 1;
}
