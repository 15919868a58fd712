// `longspan doctor`: what this machine and this MPI job have, how fast it is, and what a run would
// use of it.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/device/cuda_device.h"
#include "kernels/gpu_libraries.h"
#include "launch/command_line.h"
#include "launch/commands.h"
#include "launch/device_choice.h"
#include "launch/machine_facts.h"
#include "nlohmann/json.hpp"
#include "parallel/transport/mpi_transport.h"
#include "parallel/transport/nccl_transport.h"
#include "runtime/metrics/peak.h"
#include "runtime/metrics/run_log.h"

namespace longspan {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr char kFooter[] =
    "Examples:\n"
    "  longspan doctor                                  this machine\n"
    "  mpirun -n 4 --bind-to none longspan doctor       and what 4 ranks have between them\n"
    "  longspan doctor --json | jq .device\n"
    "Nothing is trained and nothing is written. It measures for a few seconds; --quick does not.";

struct Options {
  std::string directory = ".";
  bool quick = false;
  bool json = false;
};

// Sections of named facts: each as a person reads it, and as a program does.
class Report {
 public:
  void Add(const std::string& section, const std::string& name, Json value,
           const std::string& text) {
    json_[section][name] = std::move(value);
    rows_.push_back({section, name, text});
  }
  std::string Text() const {
    std::string text, section;
    for (const Row& row : rows_) {
      if (row.section != section)
        absl::StrAppend(&text, section.empty() ? "" : "\n", row.section, "\n");
      section = row.section;
      absl::StrAppendFormat(&text, "  %-16s %s\n", row.name, row.text);
    }
    return text;
  }
  std::string AsJson() const { return json_.dump(2) + "\n"; }

 private:
  struct Row {
    std::string section, name, text;
  };
  Json json_;
  std::vector<Row> rows_;
};

std::string Bytes(int64_t bytes) { return ShortBytes(static_cast<double>(bytes)); }

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

void Progress(const Options& options, const char* what) {
  if (!options.json && isatty(STDERR_FILENO) != 0)
    std::fprintf(stderr, "\r\033[Kmeasuring: %s", what);
}

void AddMachine(const Options& options, Report& report) {
  const MachineFacts facts = FindMachineFacts();
  report.Add("machine", "host", facts.host, facts.host);
  if (!facts.processor.empty())
    report.Add("machine", "processor", facts.processor, facts.processor);
  report.Add("machine", "cores", {{"online", facts.cores}, {"allowed", facts.allowed_cores}},
             facts.allowed_cores == facts.cores
                 ? absl::StrCat(facts.cores)
                 : absl::StrCat(facts.allowed_cores, " of ", facts.cores,
                                " by this process's affinity mask: mpirun wants --bind-to none"));
  report.Add(
      "machine", "memory",
      {{"bytes", facts.memory_bytes}, {"available_bytes", facts.available_bytes}},
      absl::StrCat(Bytes(facts.memory_bytes), ", ", Bytes(facts.available_bytes), " available"));
  report.Add("machine", "locked memory",
             facts.locked_bytes < 0 ? Json(nullptr) : Json(facts.locked_bytes),
             facts.locked_bytes < 0 ? "no limit"
                                    : absl::StrCat("at most ", Bytes(facts.locked_bytes),
                                                   " (ulimit -l): limits io_uring's buffers"));
  report.Add("machine", "io_uring",
             {{"available", facts.io_uring.empty()}, {"problem", facts.io_uring}},
             facts.io_uring.empty() ? "available: checkpoints are written by it"
                                    : facts.io_uring + "; threads write checkpoints instead");
  for (const std::string& path : {options.directory, std::string("/dev/shm")}) {
    const StorageFacts storage = FindStorageFacts(path);
    report.Add("storage", path,
               {{"kind", storage.kind},
                {"bytes", storage.bytes},
                {"free_bytes", storage.free_bytes},
                {"problem", storage.problem}},
               !storage.problem.empty()
                   ? storage.problem
                   : absl::StrCat(storage.kind, ", ", Bytes(storage.free_bytes), " free of ",
                                  Bytes(storage.bytes)));
  }
}

// Gigabytes copied in a second by all threads, of which each byte is read and written.
double MeasureCopy(Device& device) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  std::vector<char> from(kBytes, 1), to(kBytes);
  double best = 0;
  for (int round = 0; round < 4; ++round) {
    const Clock::time_point begin = Clock::now();
    const int64_t parts = device.threads().threads();
    device.threads().ParallelFor(parts, [&](int64_t part) {
      const int64_t first = kBytes / parts * part;
      std::copy_n(from.begin() + first, kBytes / parts, to.begin() + first);
    });
    if (round > 0) best = std::max(best, static_cast<double>(kBytes) / SecondsSince(begin));
  }
  return best * 1e-9;
}

absl::Status AddProcessor(const Options& options, int threads, Report& report) {
  const std::unique_ptr<Device> device = Device::OpenCpu(threads);
  report.Add("cpu", "threads", threads, absl::StrCat(threads, " a rank"));
  if (options.quick) return absl::OkStatus();
  Progress(options, "matrix products");
  Stream stream = device->CreateStream("doctor");
  const absl::StatusOr<double> peak = MeasurePeak(stream);
  if (!peak.ok()) return peak.status();
  report.Add("cpu", "f32 products", {{"flops_per_second", *peak}},
             absl::StrFormat("%.1f GFLOP/s measured", *peak * 1e-9));
  Progress(options, "memory");
  const double copy = MeasureCopy(*device);
  report.Add("cpu", "memory copy", {{"gigabytes_per_second", copy}},
             absl::StrFormat("%.1f GB/s measured", copy));
  return absl::OkStatus();
}

void AddLibrary(const std::string& name, const absl::StatusOr<std::string>& version,
                Report& report) {
  const std::string problem(version.status().message());
  report.Add("gpu", name,
             {{"version", version.ok() ? Json(*version) : Json(nullptr)}, {"problem", problem}},
             version.ok() ? *version : problem);
}

// Copies between pinned and device memory, GB/s each way.
absl::StatusOr<std::pair<double, double>> MeasureLink(Device& device) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  absl::StatusOr<Buffer> on_device =
      Buffer::Allocate(device.memory(), kBytes, "doctor", Placement::kDevice);
  if (!on_device.ok()) return on_device.status();
  absl::StatusOr<Buffer> pinned =
      Buffer::AllocateZeroed(device.memory(), kBytes, "doctor", Placement::kPinnedHost);
  if (!pinned.ok()) return pinned.status();
  std::pair<double, double> best{0, 0};
  for (int round = 0; round < 4; ++round) {
    const Clock::time_point begin = Clock::now();
    absl::Status status = device.CopyNow(pinned->data(), on_device->data(), kBytes);
    const double in = static_cast<double>(kBytes) / SecondsSince(begin);
    const Clock::time_point back = Clock::now();
    status.Update(device.CopyNow(on_device->data(), pinned->data(), kBytes));
    if (!status.ok()) return status;
    const double out = static_cast<double>(kBytes) / SecondsSince(back);
    if (round > 0) best = {std::max(best.first, in * 1e-9), std::max(best.second, out * 1e-9)};
  }
  return best;
}

void AddGpus(const Options& options, Report& report) {
  const CudaVersions versions = FindCudaVersions();
  report.Add("gpu", "CUDA", {{"runtime", versions.runtime}, {"driver", versions.driver}},
             versions.runtime.empty()
                 ? "not built in"
                 : absl::StrCat("runtime ", versions.runtime, ", driver ",
                                versions.driver.empty() ? "none" : versions.driver));
  AddLibrary("cuBLASLt", CublasLtVersion(), report);
  AddLibrary("cuDNN", CudnnVersion(), report);
  AddLibrary("NCCL", NcclVersion(), report);
  const absl::StatusOr<std::vector<GpuFacts>> gpus = FindGpus();
  if (!gpus.ok()) {
    report.Add("gpu", "devices", Json::array(), std::string(gpus.status().message()));
    return;
  }
  for (size_t index = 0; index < gpus->size(); ++index) {
    const GpuFacts& gpu = (*gpus)[index];
    Json json = {{"name", gpu.name},
                 {"bus", gpu.bus},
                 {"memory_bytes", gpu.memory_bytes},
                 {"compute_capability", absl::StrCat(gpu.major, ".", gpu.minor)},
                 {"peers", gpu.peers}};
    std::string text = absl::StrCat(gpu.name, ", ", Bytes(gpu.memory_bytes), ", capability ",
                                    gpu.major, ".", gpu.minor, ", bus ", gpu.bus);
    if (!gpu.peers.empty())
      absl::StrAppend(&text, ", reaches GPUs ", absl::StrJoin(gpu.peers, " "));
    absl::StatusOr<std::unique_ptr<Device>> device = OpenCuda(static_cast<int>(index));
    if (!device.ok()) {
      json["problem"] = std::string(device.status().message());
      absl::StrAppend(&text, ": ", device.status().message());
    } else if (!options.quick) {
      Progress(options, "the GPU");
      Stream stream = (*device)->CreateStream("doctor");
      if (const absl::StatusOr<double> peak = MeasurePeak(stream); peak.ok()) {
        json["bf16_flops_per_second"] = *peak;
        absl::StrAppendFormat(&text, ", %.1f TFLOP/s of BF16 products measured", *peak * 1e-12);
      }
      if (const auto link = MeasureLink(**device); link.ok()) {
        json["gigabytes_per_second"] = {{"in", link->first}, {"out", link->second}};
        absl::StrAppendFormat(&text, ", %.1f GB/s in and %.1f out", link->first, link->second);
      }
    }
    report.Add("gpu", absl::StrCat("GPU ", index), std::move(json), text);
  }
}

// Gigabytes a second from this rank to the next, all ranks at once, of memory of `device`.
absl::StatusOr<double> MeasureMessages(Transport& transport, Device& device) {
  constexpr int64_t kBytes = int64_t{16} << 20;
  const absl::StatusOr<Buffer> buffer =
      Buffer::AllocateZeroed(device.memory(), 2 * kBytes, "doctor", Placement::kDevice);
  if (!buffer.ok()) return buffer.status();
  const TensorView out = buffer->Tensor(DType::kU8, {kBytes}),
                   in = buffer->Tensor(DType::kU8, {kBytes}, kBytes);
  Stream stream = device.CreateStream("doctor");
  const int rank = transport.rank(), size = transport.size();
  double best = 0;
  for (int round = 0; round < 4; ++round) {
    if (absl::Status status = transport.Barrier(); !status.ok()) return status;
    const Clock::time_point begin = Clock::now();
    const Event done =
        transport.Exchange({{(rank + 1) % size, out}}, {{(rank + size - 1) % size, in}}, stream);
    if (absl::Status status = done.Wait(); !status.ok()) return status;
    if (round > 0) best = std::max(best, static_cast<double>(kBytes) / SecondsSince(begin) * 1e-9);
  }
  return best;
}

// Collective. Only rank 0 reports.
absl::Status AddJob(const Options& options, Transport& transport, Report& report) {
  const absl::StatusOr<std::vector<std::string>> hosts =
      transport.AllGatherBytes(FindMachineFacts().host);
  if (!hosts.ok()) return hosts.status();
  std::map<std::string, int> ranks_on;
  for (const std::string& host : *hosts) ++ranks_on[host];
  std::vector<std::string> nodes;
  Json json = Json::object();
  for (const auto& [host, ranks] : ranks_on) {
    nodes.push_back(absl::StrCat(host, ": ", ranks));
    json[host] = ranks;
  }
  report.Add("job", "ranks", transport.size(), absl::StrCat(transport.size()));
  report.Add("job", "ranks by node", json, absl::StrJoin(nodes, ", "));
  if (options.quick || transport.size() == 1) return absl::OkStatus();
  if (transport.rank() == 0) Progress(options, "messages");
  const std::unique_ptr<Device> device = Device::OpenCpu(1);
  const absl::StatusOr<double> rate = MeasureMessages(transport, *device);
  if (!rate.ok()) return rate.status();
  report.Add(
      "job", "messages", {{"gigabytes_per_second", *rate}},
      absl::StrFormat("%.1f GB/s from rank 0 to the next, all ranks at once, measured", *rate));
  return absl::OkStatus();
}

// Collective. What ranks on GPUs speak through; nothing where they would compute on CPUs.
absl::Status AddGpuMessages(const Options& options, int threads, Transport& host, Report& report) {
  return RunOnDevice("auto", threads, host, {}, [&](Transport& transport, Device& device) {
    if (device.kind() == DeviceKind::kCpu) return absl::OkStatus();
    Json json = {{"transport", transport.name()}};
    std::string text = transport.name();
    if (!options.quick) {
      const absl::StatusOr<double> rate = MeasureMessages(transport, device);
      if (!rate.ok()) return rate.status();
      json["gigabytes_per_second"] = *rate;
      absl::StrAppendFormat(
          &text, ", %.1f GB/s from rank 0 to the next, all ranks at once, measured", *rate);
    }
    report.Add("job", "GPU messages", std::move(json), text);
    return absl::OkStatus();
  });
}

absl::Status AddChoice(int rank_on_node, int threads, Report& report) {
  const absl::StatusOr<DeviceChoice> choice = OpenDevice("auto", rank_on_node, threads);
  if (!choice.ok()) return choice.status();
  const bool gpu = choice->device->kind() == DeviceKind::kCuda;
  const std::string why = gpu                       ? ""
                          : choice->why_cpu.empty() ? "no GPU can be used"
                                                    : choice->why_cpu;
  report.Add(
      "device", "auto",
      {{"kind", gpu ? "cuda" : "cpu"},
       {"description", choice->device->description()},
       {"why", why}},
      absl::StrCat(choice->device->description(), why.empty() ? "" : absl::StrCat(" (", why, ")")));
  return absl::OkStatus();
}

absl::Status Run(const Options& options, int* argc, char*** argv) {
  // Also without mpirun: whether MPI starts at all is what is asked.
  const absl::StatusOr<std::unique_ptr<Transport>> transport = OpenMpiTransport(argc, argv);
  if (!transport.ok() && LaunchedUnderMpi()) return transport.status();
  const int ranks_here = transport.ok() ? (*transport)->ranks_on_node() : 1;
  const int threads = std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)) / ranks_here);
  const bool leader = !transport.ok() || (*transport)->rank() == 0;
  Report report;
  absl::Status status;
  if (leader) {
    AddMachine(options, report);
    status = AddProcessor(options, threads, report);
    AddGpus(options, report);
  }
  const std::string problem(transport.status().message());
  report.Add(
      "job", "MPI", {{"library", MpiLibraryVersion()}, {"problem", problem}},
      absl::StrCat(MpiLibraryVersion(), problem.empty() ? ", with threads" : ": " + problem));
  if (transport.ok()) status.Update(AddJob(options, **transport, report));
  if (transport.ok() && (*transport)->size() > 1 && status.ok())
    status = AddGpuMessages(options, threads, **transport, report);
  if (leader && status.ok()) status = AddChoice(0, threads, report);
  if (!leader || !status.ok()) return status;
  if (!options.json && isatty(STDERR_FILENO) != 0) std::fprintf(stderr, "\r\033[K");
  std::fputs((options.json ? report.AsJson() : report.Text()).c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace

void RegisterDoctorCommand(const Command& root, SelectedCommand* selected, int* argc,
                           char*** argv) {
  auto options = std::make_shared<Options>();
  const Command doctor = root.AddCommand(
      "doctor", "What this machine and this MPI job have: devices, speeds, libraries, limits");
  doctor.AddOption("--directory", options->directory, "where runs will be written").ShowDefault();
  doctor.AddFlag("--quick", options->quick, "measure nothing");
  doctor.AddFlag("--json", options->json, "print one JSON object");
  doctor.Footer(kFooter);
  doctor.OnChosen([selected, options, argc, argv] {
    *selected = [options, argc, argv] { return Run(*options, argc, argv); };
  });
}

}  // namespace longspan
