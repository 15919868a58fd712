// train_bench: one workload of the training benchmark, driven line by line, so that a driver can
// interleave it with others (measure.py).
//
// Reads commands from standard input and answers each with one line of JSON on standard output:
//   step            one training step: zero, forward, backward, reduce, clip, AdamW, gather
//   profile         the same, and the seconds by operator on rank 0
//   gemm N COUNT    COUNT products of two N x N matrices on every rank at once
//   shape           the model, as pytorch_train.py takes it
//   device          what it runs on
// End of input ends the program. Ranks are threads of this program.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "bench_device.h"
#include "kernels/device/mirrored_buffer.h"
#include "kernels/elementwise.h"
#include "launch/command_line.h"
#include "operator_sampler.h"
#include "optim/gradient_norms.h"
#include "parallel/plan.h"
#include "parallel/transport/rank_threads.h"
#include "runtime/cost/known_models.h"
#include "runtime/model/transformer.h"
#include "runtime/train/step_inputs.h"
#include "runtime/train/training_state.h"

namespace longspan {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// One step's documents are all of one length.
struct Workload {
  int ranks = 1;
  int threads = 0;  // a rank; 0: the machine's, shared out evenly
  int64_t length = 512;
  int64_t tokens = 4096;  // a step
  ModelConfig model;
};

constexpr char kBenchmarkModel[] = "benchmark", kTinyModel[] = "tiny";

absl::StatusOr<ModelConfig> ModelOf(const std::string& name, int64_t length) {
  ModelConfig model;
  if (name == kBenchmarkModel) {
    model.layers = 6;
    model.width = 384;
    model.heads = model.kv_heads = 6;
    model.ffn = 1024;
    model.vocab = 4096;
  } else if (name == kTinyModel) {
    model.layers = 2;
    model.width = 64;
    model.heads = 2;
    model.kv_heads = 1;
    model.ffn = 128;
    model.vocab = 256;
  } else {
    absl::StatusOr<ModelConfig> known = ModelByName(name);
    if (!known.ok()) return known.status();
    model = *known;
  }
  model.positions = length;
  return model;
}

// The same pseudo-random tokens as pytorch_train.py.
int32_t TokenAt(int64_t index, int64_t vocabulary) {
  const uint64_t mixed = (static_cast<uint64_t>(index) * 2654435761u + 12345u) & 0xffffffffu;
  return static_cast<int32_t>((mixed >> 12) % static_cast<uint64_t>(vocabulary));
}

std::string ShapeJson(const ModelConfig& c) {
  return absl::StrFormat(
      "{\"family\": \"%s\", \"layers\": %d, \"width\": %d, \"heads\": %d, \"kv_heads\": %d, "
      "\"ffn\": %d, "
      "\"vocab\": %d, \"rope_base\": %.17g, \"norm_eps\": %.9g, \"tied\": %s}",
      Name(c.family), c.layers, c.width, c.heads, c.kv_heads, c.ffn, c.vocab, c.rope_base,
      c.norm_eps, c.tied() ? "true" : "false");
}

// One rank's part of every step.
struct Inputs {
  std::vector<int32_t> ids, positions, targets;
  std::optional<RingLayout> ring;
  std::vector<int64_t> whole;

  void Append(int64_t document, int64_t length, TokenRange range, int64_t vocabulary) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      ids.push_back(TokenAt(document * length + i, vocabulary));
      targets.push_back(TokenAt(document * length + i + 1, vocabulary));
      positions.push_back(static_cast<int32_t>(i));
    }
  }
  int64_t rows() const { return static_cast<int64_t>(ids.size()); }
  TokenBatch batch() {
    return {TensorView::Of(ids.data(), {rows()}), TensorView::Of(positions.data(), {rows()}),
            TensorView::Of(targets.data(), {rows()})};
  }
};

// Whole documents where every rank can have as many; else each document is shared by all ranks.
Inputs InputsOf(const Workload& workload, int rank, int64_t vocabulary) {
  Inputs inputs;
  const int64_t documents = workload.tokens / workload.length;
  if (documents % workload.ranks == 0) {
    for (int64_t d = rank; d < documents; d += workload.ranks) {
      inputs.Append(d, workload.length, {0, workload.length}, vocabulary);
      inputs.whole.push_back(workload.length);
    }
    return inputs;
  }
  inputs.ring = RingLayout{{}, rank, {}};
  for (int r = 0; r < workload.ranks; ++r) inputs.ring->ranks.push_back(r);
  for (int64_t d = 0; d < documents; ++d) {
    inputs.ring->lengths.push_back(workload.length);
    for (const TokenRange& range : ZigzagRanges(workload.length, workload.ranks, rank))
      inputs.Append(d, workload.length, range, vocabulary);
  }
  return inputs;
}

// One rank of the benchmark.
class BenchmarkRank {
 public:
  BenchmarkRank(const Workload& workload, Transport& transport, Device& device)
      : workload_(workload),
        model_config_(workload.model),
        transport_(transport),
        device_(device),
        host_device_(device.kind() == DeviceKind::kCpu ? nullptr : Device::OpenCpu(1)),
        stream_(device.CreateStream("compute")) {
    if (host_device_ != nullptr) host_stream_.emplace(host_device_->CreateStream("host"));
  }

  absl::Status SetUp() {
    absl::StatusOr<std::unique_ptr<TrainingState>> state = TrainingState::Create(
        model_config_, AdamWConfig{0.9, 0.95, 1e-8, 0.1}, transport_, device_);
    if (!state.ok()) return state.status();
    state_ = *std::move(state);
    inputs_ = InputsOf(workload_, transport_.rank(), model_config_.vocab);
    absl::StatusOr<std::unique_ptr<Transformer>> model =
        Transformer::Create(model_config_, inputs_.rows(), /*for_training=*/true, device_);
    if (!model.ok()) return model.status();
    model_ = *std::move(model);
    micro_batches_.resize(1);
    micro_batches_[0].batch = inputs_.batch();
    micro_batches_[0].ring = inputs_.ring;
    micro_batches_[0].whole = inputs_.whole;
    if (absl::Status status = buffers_.Take(micro_batches_, device_); !status.ok()) return status;
    absl::StatusOr<MirroredBuffer> statistics =
        MirroredBuffer::Allocate(device_, kGradientStatistics * SizeOf(DType::kF64), "statistics");
    if (!statistics.ok()) return statistics.status();
    statistics_ = *std::move(statistics);
    return state_->SetParameters(
        [&](TensorView arena) {
          InitializeWeights(model_config_, state_->layout(), /*seed=*/1, arena, device_.threads());
          return absl::OkStatus();
        },
        stream_);
  }

  // Executes commands that rank 0 reads, until there are no more.
  absl::Status Serve() {
    while (true) {
      std::string line;
      if (leader() && !std::getline(std::cin, line)) line = "end";
      absl::StatusOr<std::string> command = transport_.BroadcastBytes(line, /*root=*/0);
      if (!command.ok()) return command.status();
      if (*command == "end") return absl::OkStatus();
      absl::Status status = Execute(*command);
      if (!status.ok()) return status;
    }
  }

 private:
  bool leader() const { return transport_.rank() == 0; }
  Stream& host() { return host_stream_.has_value() ? *host_stream_ : stream_; }

  absl::Status Execute(const std::string& line) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    if (name == "step") return Step(/*profile=*/false);
    if (name == "profile") return Step(/*profile=*/true);
    if (name == "shape") {
      if (leader()) Answer(ShapeJson(model_config_));
      return absl::OkStatus();
    }
    if (name == "device") {
      if (leader()) Answer(absl::StrCat("{\"device\": \"", device_.description(), "\"}"));
      return absl::OkStatus();
    }
    int64_t size = 0, count = 0;
    if (name == "gemm" && (words >> size >> count) && size > 0 && count > 0)
      return Products(size, count);
    return absl::InvalidArgumentError(absl::StrCat(
        "'", line, "' is not a command; there are: step, profile, shape, device, gemm N COUNT"));
  }

  absl::Status Step(bool profile) {
    std::optional<OperatorSampler> sampler;
    if (profile && leader()) sampler.emplace(stream_);
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    const Clock::time_point begin = Clock::now();

    PlannedAttention attention(inputs_.ring, inputs_.whole, {}, transport_, ring_workspace_);
    const TensorView statistics = statistics_.OnDevice(DType::kF64, {kGradientStatistics});
    Zero(state_->gradient_arena(), stream_);
    Zero(statistics, stream_);
    absl::Status status =
        model_->ForwardBackward(micro_batches_[0].batch, attention, state_->weights(),
                                state_->gradients(), buffers_.Losses(0), stream_);
    if (!status.ok()) {
      transport_.Abort(std::string(status.message()));
      return status;
    }
    const auto loss = std::make_shared<double>(0.0);
    buffers_.QueueLossSum(0, loss, stream_);
    state_->ReduceGradients(statistics, stream_);
    statistics_.ToHost(0, statistics_.bytes(), stream_);
    if (status = stream_.Synchronize(); !status.ok()) return status;
    std::vector<double> sums(kStepSums);
    const auto* gradient = statistics_.OnHost(DType::kF64, {kGradientStatistics}).data<double>();
    std::copy(gradient, gradient + kGradientStatistics, sums.begin());
    sums[kLossSum] = *loss;
    transport_.AllReduceSum(TensorView::Of(sums.data(), {kStepSums}), host());
    if (status = host().Synchronize(); !status.ok()) return status;

    StepSumVector summed{};
    std::copy(sums.begin(), sums.end(), summed.begin());
    const double norm = NormsOf(summed, workload_.tokens).l2;
    state_->Update(
        {/*rate=*/3e-4, ClipFactor(norm, 1.0) / static_cast<double>(workload_.tokens), ++updates_},
        std::vector<Event>(state_->layout().buckets().size()), stream_);
    if (status = stream_.Synchronize(); !status.ok()) return status;
    if (status = transport_.Barrier(); !status.ok()) return status;
    const double seconds = SecondsSince(begin);

    if (!leader()) return absl::OkStatus();
    const int64_t documents = workload_.tokens / workload_.length;
    std::string operators;
    if (sampler.has_value()) {
      for (const auto& [name, spent] : sampler->Stop())
        absl::StrAppendFormat(&operators, "%s\"%s\": %.6f", operators.empty() ? "" : ", ",
                              name.empty() ? "(idle)" : name, spent);
    }
    Answer(absl::StrFormat(
        "{\"seconds\": %.6f, \"tokens\": %d, \"flops\": %.0f, \"loss\": %.6f, "
        "\"peak_resident_bytes\": %d%s}",
        seconds, workload_.tokens,
        static_cast<double>(documents) * model_config_.TrainingFlops(workload_.length),
        summed[kLossSum] / static_cast<double>(workload_.tokens), PeakResidentBytes(),
        profile ? absl::StrCat(", \"operators\": {", operators, "}") : ""));
    return absl::OkStatus();
  }

  absl::Status Products(int64_t size, int64_t count) {
    if (products_.size() != size) {
      absl::StatusOr<BenchProducts> products = BenchProducts::Create(size, device_, stream_);
      if (!products.ok()) return products.status();
      products_ = *std::move(products);
    }
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    const Clock::time_point begin = Clock::now();
    products_.Launch(count, stream_);
    if (absl::Status status = stream_.Synchronize(); !status.ok()) return status;
    if (absl::Status status = transport_.Barrier(); !status.ok()) return status;
    if (leader())
      Answer(ProductsJson(SecondsSince(begin), products_.flops(count) * workload_.ranks));
    return absl::OkStatus();
  }

  static void Answer(const std::string& json) {
    std::printf("%s\n", json.c_str());
    std::fflush(stdout);
  }

  const Workload& workload_;
  const ModelConfig& model_config_;
  Transport& transport_;
  Device& device_;
  std::unique_ptr<TrainingState> state_;
  std::unique_ptr<Transformer> model_;
  RingWorkspace ring_workspace_;
  Inputs inputs_;
  std::vector<MicroBatchInputs> micro_batches_;  // one
  StepBuffers buffers_;
  MirroredBuffer statistics_;
  BenchProducts products_;
  int64_t updates_ = 0;
  const std::unique_ptr<Device> host_device_;  // beside a GPU: for what the host reduces
  Stream stream_;                              // last: its queued work may use all of the above
  std::optional<Stream> host_stream_;
};

int Main(int argc, char** argv) {
  Workload workload;
  std::string model = kBenchmarkModel, device_name = "cpu";
  CommandLine app("One workload of the training benchmark; commands come from standard input.",
                  "train_bench");
  app.AddOption("--ranks", workload.ranks, "Ranks, as threads of this program").Positive();
  app.AddOption("--threads", workload.threads, "Threads of a rank; by default cores / ranks")
      .Positive();
  AddDeviceOption(app, device_name);
  app.AddOption("--model", model,
                absl::StrCat("'", kBenchmarkModel,
                             "', or a shape: ", absl::StrJoin(KnownModelNames(), ", ")));
  app.AddOption("--length", workload.length, "Tokens of each document").Positive();
  app.AddOption("--tokens", workload.tokens, "Tokens of a step, a multiple of the length")
      .Positive();
  if (const std::optional<int> ended = app.Parse(argc, argv)) return *ended;
  if (workload.tokens % workload.length != 0) {
    std::fprintf(stderr, "train_bench: --tokens is not a multiple of --length\n");
    return 2;
  }
  absl::StatusOr<ModelConfig> config = ModelOf(model, workload.length);
  if (!config.ok()) {
    std::fprintf(stderr, "train_bench: --model: %s\n",
                 std::string(config.status().message()).c_str());
    return 2;
  }
  workload.model = *config;
  if (workload.threads == 0) {
    const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    workload.threads = std::max(1, cores / workload.ranks);
  }
  RankThreadOptions options;
  options.threads_per_rank = workload.threads;
  options.open_device = [&](int) { return OpenBenchDevice(device_name, workload.threads); };
  const absl::Status status = RunRanks(
      workload.ranks,
      [&](Transport& transport, Device& device) -> absl::Status {
        BenchmarkRank rank(workload, transport, device);
        absl::Status result = rank.SetUp();
        return result.ok() ? rank.Serve() : result;
      },
      options);
  if (!status.ok()) {
    std::fprintf(stderr, "train_bench: %s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) { return longspan::Main(argc, argv); }
