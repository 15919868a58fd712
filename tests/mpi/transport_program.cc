// A rank of the MPI tests; see CMakeLists.txt for how it is started.
//
//   transport_program conform [PIECE_BYTES [rank-order|mpi]]   checks the transport; exit 0 if it
//   is right transport_program abort     the last rank aborts while the others wait for it
//   transport_program exit      the last rank ends without a word while the others wait for it
//   transport_program idle      seconds of processor time that a rank spends on two seconds of
//   waiting; fails if it spins
#include <time.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../parallel/transport_conformance.h"
#include "parallel/transport/mpi_transport.h"

namespace longspan {
namespace {

double ProcessorSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Waits for a message, an all-reduce, or a barrier, by rank; the last rank does `last` instead.
template <typename Last>
absl::Status WaitForTheLast(Transport& transport, Device& device, const Last& last) {
  const int rank = transport.rank(), end = transport.size() - 1;
  Stream stream = device.CreateStream("waits");
  std::vector<float> values(100000, 1);
  const TensorView view = TensorView::Of(values.data(), {100000});
  if (rank == end) {
    last(transport);
    if (rank > 0) stream.WaitFor(transport.Exchange({{0, view}}, {}, stream));
  } else if (rank == 0) {
    stream.WaitFor(transport.Exchange({}, {{end, view}}, stream));
  }
  transport.AllReduceSum(view, stream);
  absl::Status status = stream.Synchronize();
  return status.ok() ? transport.Barrier() : status;
}

absl::Status RunCase(const std::vector<std::string>& arguments, Transport& transport,
                     Device& device, const MpiOptions& options) {
  const std::string& name = arguments[0];
  if (name == "conform") {
    return CheckTransport(transport, device,
                          {.rank_order = options.reduction != MpiOptions::Reduction::kMpi});
  }
  if (name == "abort") {
    return WaitForTheLast(transport, device, [](Transport& last) {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      std::fprintf(stderr, "the last rank aborts now\n");
      last.Abort("as asked");
    });
  }
  if (name == "exit") {
    return WaitForTheLast(transport, device, [](Transport&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      std::fprintf(stderr, "the last rank exits now\n");
      std::_Exit(3);
    });
  }
  if (name == "idle") {
    const double before = ProcessorSeconds();
    absl::Status status = WaitForTheLast(transport, device, [](Transport&) {
      std::this_thread::sleep_for(std::chrono::seconds(2));
    });
    const double spent = ProcessorSeconds() - before;
    std::printf("rank %d: %.3f s of processor time\n", transport.rank(), spent);
    if (status.ok() && spent > 0.5) {
      status = absl::InternalError("a waiting rank keeps a core busy: " + std::to_string(spent) +
                                   " s of processor time in 2 s");
    }
    return status;
  }
  return absl::InvalidArgumentError("no such case: " + name);
}

int Main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.empty()) {
    std::fprintf(stderr, "transport_program: which case?\n");
    return 2;
  }
  MpiOptions options;
  if (arguments.size() > 1) options.piece_bytes = std::stoll(arguments[1]);
  if (arguments.size() > 2) {
    options.reduction =
        arguments[2] == "mpi" ? MpiOptions::Reduction::kMpi : MpiOptions::Reduction::kRankOrder;
  }
  absl::StatusOr<std::unique_ptr<Transport>> transport = OpenMpiTransport(&argc, &argv, options);
  if (!transport.ok()) {
    std::fprintf(stderr, "%s\n", transport.status().ToString().c_str());
    return 1;
  }
  std::unique_ptr<Device> device = Device::OpenCpu(1);
  const absl::Status status = RunCase(arguments, **transport, *device, options);
  if (!status.ok()) {
    std::fprintf(stderr, "rank %d: %s\n", (*transport)->rank(), status.ToString().c_str());
    (*transport)->Abort(std::string(status.message()));
  }
  return 0;
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) { return longspan::Main(argc, argv); }
