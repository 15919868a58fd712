// The checkpoint library in an MPI program that has nothing to do with transformers: a wave on a
// ring of cells that the ranks share. The state is saved after every iteration, in the background;
// started again, on any number of ranks, the program continues from the newest committed state.
//
//   mpirun -n 3 wave FOLDER 1000     iterations 1 to 1000
//   mpirun -n 2 wave FOLDER 2000     continues with 1001
//
// At the end rank 0 writes the cells to FOLDER/result; run.sh shows that a run which was killed
// ends with the same bits as one which was not.
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/lazy_writer.h"
#include "checkpoint/storage.h"
#include "parallel/transport/mpi_transport.h"

namespace {

constexpr int64_t kCells = 100000;

// The cells that this rank holds.
struct Share {
  int64_t begin, end;
  int left, right;  // the ranks beside
  std::vector<double> position, velocity;
};

Share MakeShare(int rank, int ranks) {
  Share share{kCells * rank / ranks,
              kCells * (rank + 1) / ranks,
              (rank + ranks - 1) % ranks,
              (rank + 1) % ranks,
              {},
              {}};
  share.velocity.resize(share.end - share.begin);
  for (int64_t i = share.begin; i < share.end; ++i)
    share.position.push_back(i < 1000 ? 1e-6 * static_cast<double>(i * (1000 - i)) : 0.0);
  return share;
}

// The first half of an iteration: reads positions, changes velocities. `may_change` is waited for
// in between.
void Accelerate(Share& share, const longspan::Event& may_change) {
  std::vector<double>& x = share.position;
  double before = 0, after = 0;  // the neighbours' cells next to ours
  MPI_Sendrecv(&x.back(), 1, MPI_DOUBLE, share.right, 0, &before, 1, MPI_DOUBLE, share.left, 0,
               MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  MPI_Sendrecv(&x.front(), 1, MPI_DOUBLE, share.left, 1, &after, 1, MPI_DOUBLE, share.right, 1,
               MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  (void)may_change.Wait();  // gates never fail
  for (size_t i = 0; i < x.size(); ++i) {
    const double left = i > 0 ? x[i - 1] : before;
    const double right = i + 1 < x.size() ? x[i + 1] : after;
    share.velocity[i] += 0.25 * (left - 2 * x[i] + right);
  }
}

// The second half.
void Move(Share& share, const longspan::Event& may_change) {
  (void)may_change.Wait();
  for (size_t i = 0; i < share.position.size(); ++i) share.position[i] += share.velocity[i];
}

// How saves have ended since the last call. One that failed does not end the program: the
// checkpoint before it stays.
void Report(longspan::LazyCheckpointWriter& writer, int rank, int64_t& committed) {
  for (const longspan::FinishedSave& save : writer.TakeFinished()) {
    if (save.status.ok()) {
      ++committed;
    } else if (rank == 0) {
      std::fprintf(stderr, "wave: %s\n", save.status.ToString().c_str());
    }
  }
}

absl::Status Run(longspan::Transport& transport, const std::string& folder, int64_t iterations) {
  Share share = MakeShare(transport.rank(), transport.size());

  // 1. What is to be saved: named ranges of arrays, registered once. Arrays that change one after
  // the other have gates of their own, in that order.
  const std::vector<longspan::StateRegion> state = {{"/wave",
                                                     "velocity",
                                                     longspan::DType::kF64,
                                                     {kCells},
                                                     share.begin,
                                                     share.end,
                                                     share.velocity.data(),
                                                     /*gate=*/0},
                                                    {"/wave",
                                                     "position",
                                                     longspan::DType::kF64,
                                                     {kCells},
                                                     share.begin,
                                                     share.end,
                                                     share.position.data(),
                                                     /*gate=*/1}};

  // 2. The newest committed state, if any. Other ranks may have written other shares.
  auto storage = longspan::OpenStorage();
  if (!storage.ok()) return storage.status();
  longspan::CheckpointOptions options;
  options.directory = folder + "/checkpoints";
  options.run_id = "wave";
  const auto found = longspan::ListCheckpoints(**storage, options.directory);
  if (!found.ok()) return found.status();
  int64_t iteration = 0;
  if (!found->empty()) {
    const absl::Status restored = longspan::RestoreRegions(**storage, found->front(), state);
    if (!restored.ok()) return restored;
    iteration = found->front().step;
    if (transport.rank() == 0)
      std::printf("continued after iteration %lld\n", static_cast<long long>(iteration));
  }

  // 3. Save after every iteration; before memory changes, wait for its gate.
  longspan::MemoryTable memory;
  auto writer =
      longspan::LazyCheckpointWriter::Open(**storage, options, {}, state, memory, transport);
  if (!writer.ok()) return writer.status();
  std::vector<longspan::Event> gates(2);  // done: nothing is being saved yet
  int64_t committed = 0;
  const int64_t first = iteration;
  while (iteration < iterations) {
    Accelerate(share, gates[0]);
    Move(share, gates[1]);
    longspan::SnapshotRequest snapshot;
    snapshot.step = ++iteration;
    snapshot.changed = true;  // the same bytes as last time would be a mistake
    gates = (*writer)->Snapshot(std::move(snapshot));
    Report(**writer, transport.rank(), committed);
  }

  // 4. What is still on its way would be given up when the writer ends.
  (*writer)->Drain();
  Report(**writer, transport.rank(), committed);

  const auto cells = transport.AllGatherBytes({reinterpret_cast<const char*>(share.position.data()),
                                               share.position.size() * sizeof(double)});
  if (!cells.ok()) return cells.status();
  if (transport.rank() == 0) {
    std::ofstream result(folder + "/result", std::ios::binary);
    for (const std::string& part : *cells) result << part;
    if (!result.flush()) return absl::UnavailableError("could not write " + folder + "/result");
    std::printf("iteration %lld; %lld of %lld saves committed\n", static_cast<long long>(iteration),
                static_cast<long long>(committed), static_cast<long long>(iteration - first));
  }
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: wave FOLDER ITERATIONS (of all runs together; FOLDER exists)\n");
    return 2;
  }
  auto transport = longspan::OpenMpiTransport(&argc, &argv);
  if (!transport.ok()) {
    std::fprintf(stderr, "wave: %s\n", transport.status().ToString().c_str());
    return 1;
  }
  const absl::Status status = Run(**transport, argv[1], std::atoll(argv[2]));
  if (status.ok()) return 0;
  std::fprintf(stderr, "wave: rank %d: %s\n", (*transport)->rank(), status.ToString().c_str());
  (*transport)->Abort("failed");
  return 1;
}
