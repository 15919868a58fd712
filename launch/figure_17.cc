#include "launch/figure_17.h"

namespace longspan {
namespace {

// Shapes as their authors publish them: LLaMA (arXiv 2302.13971, table 2) for 7B, 13B and 30B,
// Llama 2 (arXiv 2307.09288) for 70B, and the configuration that Mistral AI published with the
// weights of Mixtral-8x22B. A token meets 2 of its 8 experts.
struct Shape {
  const char* name;
  double layers, width, kv_width, ffn;
  double experts = 1, active_experts = 1;
  double vocabulary = 32000;

  // Parameters of one layer that a token is multiplied with.
  double ActiveLayer() const { return Attention() + active_experts * 3 * width * ffn; }
  double Attention() const { return 2 * width * (width + kv_width); }
  double Parameters() const {
    return layers * (Attention() + experts * 3 * width * ffn) + 2 * vocabulary * width;
  }
};

constexpr Shape kLlama7b = {"LLaMA-7B", 32, 4096, 4096, 11008};
constexpr Shape kLlama13b = {"LLaMA-13B", 40, 5120, 5120, 13824};
constexpr Shape kLlama30b = {"LLaMA-30B", 60, 6656, 6656, 17920};
constexpr Shape kLlama70b = {"LLaMA-70B", 80, 8192, 1024, 28672};
constexpr Shape kMixtral = {"Mistral-8x22B", 56, 6144, 1024, 16384, 8, 2, 32768};

// The case study: LLaMA-7B on ranks of two GPUs.
constexpr CostModel CaseStudy() { return {8.0e-9, 1.055e-4, 2.23e-5, 1.92e-3, 8.0e-3, {}}; }
constexpr double kCaseStudyGpus = 2;
// Of one GPU: 134 MB of keys and values of 8192 tokens in 1.9 ms, over two.
constexpr double kLinkBytesPerSecond = 35e9;

// The arithmetic and the links of a rank grow with its GPUs; latencies do not shrink.
CostModel ScaledCost(const Shape& shape, int tensor_parallel) {
  const double layers = shape.layers / kLlama7b.layers;
  const double gpus = tensor_parallel / kCaseStudyGpus;
  CostModel cost = CaseStudy();
  cost.attention_seconds_per_pair *= layers * shape.width / kLlama7b.width / gpus;
  cost.linear_seconds_per_token *= layers * shape.ActiveLayer() / kLlama7b.ActiveLayer() / gpus;
  cost.ring_seconds_per_token *= layers * shape.kv_width / kLlama7b.kv_width / gpus;
  cost.ring_step_seconds *= layers;
  cost.micro_batch_seconds *= layers;
  return cost;
}

struct Cluster {
  const Shape* shape;
  int gpus, tensor_parallel, stages;
  std::array<double, 4> github, byted;  // published
};

// The published numbers are those that we know, by the text of the paper. It gives the tensor
// degree of the first cluster alone; the others, and the models of 4096 and 8192 GPUs, are our
// choice: at least 256 ranks, which 2M tokens need.
const Cluster kClusters[] = {
    {&kLlama7b, 1024, 2, 1, {1.73, 2.49, 4.56, 7.89}, {1.68, 1.98, 2.34, 4.26}},
    {&kLlama13b, 2048, 4, 1, {1.65, 2.22, 4.15, 6.88}, {}},
    {&kLlama30b, 4096, 8, 1, {}, {}},
    {&kLlama70b, 8192, 8, 4, {}, {}},
    {&kLlama70b, 8192, 8, 1, {}, {}},
    {&kMixtral, 12288, 8, 4, {1.28, 1.59, 2.72, 4.13}, {}},
    {&kMixtral, 12288, 8, 1, {1.28, 1.59, 2.72, 4.13}, {}},
};

}  // namespace

std::vector<Figure17Curve> Figure17Curves() {
  std::vector<Figure17Curve> curves;
  for (const char* mix : {"github", "byted"}) {
    for (const Cluster& cluster : kClusters) {
      Figure17Curve& curve = curves.emplace_back();
      curve.mix = mix;
      curve.model = cluster.shape->name;
      curve.gpus = cluster.gpus;
      curve.tensor_parallel = cluster.tensor_parallel;
      curve.stages = cluster.stages;
      curve.published = curve.mix == "github" ? cluster.github : cluster.byted;
      for (const int64_t context : kFigure17Contexts) {
        SimulationCase simulated;
        simulated.mix = mix;
        simulated.context = context;
        simulated.tokens = 32 << 20;
        simulated.micro_batch_tokens = 8192;
        simulated.ranks = cluster.gpus / (cluster.tensor_parallel * cluster.stages);
        simulated.simulation.cost = ScaledCost(*cluster.shape, cluster.tensor_parallel);
        simulated.simulation.stages = cluster.stages;
        simulated.simulation.update = AnalyticUpdateModel(
            cluster.shape->Parameters() / cluster.tensor_parallel, kLinkBytesPerSecond);
        simulated.policy = "static";
        curve.baseline.push_back(simulated);
        simulated.policy = cluster.stages > 1 ? "pp-balance" : "bytescale";
        curve.bytescale.push_back(simulated);
        simulated.policy = "skyline";
        curve.skyline.push_back(simulated);
      }
    }
  }
  return curves;
}

}  // namespace longspan
