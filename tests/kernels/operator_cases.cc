#include "operator_cases.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "case_parts.h"
#include "kernels/activation.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/normalization.h"
#include "kernels/optimizer_pass.h"
#include "kernels/rope.h"

namespace longspan {
namespace {

namespace ref = reference;

constexpr float kEps = 1e-5f;

OperatorCase RmsNormForwardCase(int64_t rows, int64_t width) {
  OperatorCase c;
  c.name = Named("rms_norm_forward", {rows, width});
  c.operands = {In("x", {rows, width}), Positive("weight", {width}), Out("y", {rows, width}),
                Out("rstd", {rows})};
  c.run = [](const Views& v, Stream& s) { RmsNormForward(v[0], v[1], kEps, v[2], v[3], s); };
  c.reference = [](Values& v) { ref::RmsNormForward(v[0], v[1], kEps, v[2], v[3]); };
  return c;
}

OperatorCase RmsNormBackwardCase(int64_t rows, int64_t width) {
  OperatorCase c;
  c.name = Named("rms_norm_backward", {rows, width});
  c.operands = {In("dy", {rows, width}),  In("x", {rows, width}),   Positive("weight", {width}),
                Computed("rstd", {rows}), Sum("dx", {rows, width}), Sum("dweight", {width})};
  c.prepare = [](Values& v) {
    Doubles y(v[1].size());
    ref::RmsNormForward(v[1], v[2], kEps, y, v[3]);
  };
  c.run = [](const Views& v, Stream& s) { RmsNormBackward(v[0], v[1], v[2], v[3], v[4], v[5], s); };
  c.reference = [](Values& v) { ref::RmsNormBackward(v[0], v[1], v[2], v[3], v[4], v[5]); };
  c.loss = [](const Values& v) {
    Doubles y(v[1].size()), rstd(v[3].size());
    ref::RmsNormForward(v[1], v[2], kEps, y, rstd);
    return Dot(v[0], y);
  };
  c.derivatives = {{1, 4}, {2, 5}};
  c.tolerance = 5e-6;
  return c;
}

OperatorCase LayerNormForwardCase(int64_t rows, int64_t width) {
  OperatorCase c;
  c.name = Named("layer_norm_forward", {rows, width});
  c.operands = {In("x", {rows, width}),  Positive("weight", {width}), In("bias", {width}),
                Out("y", {rows, width}), Out("mean", {rows}),         Out("rstd", {rows})};
  c.run = [](const Views& v, Stream& s) {
    LayerNormForward(v[0], v[1], v[2], kEps, v[3], v[4], v[5], s);
  };
  c.reference = [](Values& v) { ref::LayerNormForward(v[0], v[1], v[2], kEps, v[3], v[4], v[5]); };
  return c;
}

OperatorCase LayerNormBackwardCase(int64_t rows, int64_t width) {
  OperatorCase c;
  c.name = Named("layer_norm_backward", {rows, width});
  c.operands = {In("dy", {rows, width}),  In("x", {rows, width}),   Positive("weight", {width}),
                Computed("mean", {rows}), Computed("rstd", {rows}), Sum("dx", {rows, width}),
                Sum("dweight", {width}),  Sum("dbias", {width}),    In("bias", {width})};
  c.prepare = [](Values& v) {
    Doubles y(v[1].size());
    ref::LayerNormForward(v[1], v[2], v[8], kEps, y, v[3], v[4]);
  };
  c.run = [](const Views& v, Stream& s) {
    LayerNormBackward(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], s);
  };
  c.reference = [](Values& v) {
    ref::LayerNormBackward(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
  };
  c.loss = [](const Values& v) {
    Doubles y(v[1].size()), mean(v[3].size()), rstd(v[4].size());
    ref::LayerNormForward(v[1], v[2], v[8], kEps, y, mean, rstd);
    return Dot(v[0], y);
  };
  c.derivatives = {{1, 5}, {2, 6}, {8, 7}};
  c.tolerance = 5e-6;
  return c;
}

OperatorCase RopeForwardCase(int64_t rows, int64_t heads, int64_t head_dim, int64_t positions) {
  OperatorCase c;
  c.name = Named("rope_forward", {rows, heads, head_dim, positions});
  c.operands = {InPlace("x", {rows, heads, head_dim}), Integers("positions", rows, positions)};
  c.run = [](const Views& v, Stream& s) { RopeForward(v[0], v[1], 10000.0, s); };
  c.reference = [=](Values& v) { ref::Rope(v[1], heads, head_dim, 10000.0, 1, v[0]); };
  c.tolerance = 1e-6;
  return c;
}

OperatorCase RopeBackwardCase(int64_t rows, int64_t heads, int64_t head_dim, int64_t positions) {
  OperatorCase c;
  c.name = Named("rope_backward", {rows, heads, head_dim, positions});
  c.operands = {InPlace("dx", {rows, heads, head_dim}), Integers("positions", rows, positions),
                In("x", {rows, heads, head_dim})};
  c.run = [](const Views& v, Stream& s) { RopeBackward(v[0], v[1], 500000.0, s); };
  c.reference = [=](Values& v) { ref::Rope(v[1], heads, head_dim, 500000.0, -1, v[0]); };
  c.loss = [=](const Values& v) {
    Doubles y = v[2];
    ref::Rope(v[1], heads, head_dim, 500000.0, 1, y);
    return Dot(v[0], y);
  };
  c.derivatives = {{2, 0}};
  c.tolerance = 1e-6;
  return c;
}

OperatorCase SwiGluForwardCase(int64_t rows, int64_t ffn) {
  OperatorCase c;
  c.name = Named("swiglu_forward", {rows, ffn});
  c.operands = {In("gate_up", {rows, 2 * ffn}), Out("y", {rows, ffn})};
  c.operands[0].scale = 4;
  c.run = [](const Views& v, Stream& s) { SwiGluForward(v[0], v[1], s); };
  c.reference = [=](Values& v) { ref::SwiGluForward(v[0], ffn, v[1]); };
  return c;
}

OperatorCase SwiGluBackwardCase(int64_t rows, int64_t ffn) {
  OperatorCase c;
  c.name = Named("swiglu_backward", {rows, ffn});
  c.operands = {In("dy", {rows, ffn}), In("gate_up", {rows, 2 * ffn}),
                Out("dgate_up", {rows, 2 * ffn})};
  c.operands[1].scale = 4;
  c.run = [](const Views& v, Stream& s) { SwiGluBackward(v[0], v[1], v[2], s); };
  c.reference = [=](Values& v) { ref::SwiGluBackward(v[0], v[1], ffn, v[2]); };
  c.loss = [=](const Values& v) {
    Doubles y(v[0].size());
    ref::SwiGluForward(v[1], ffn, y);
    return Dot(v[0], y);
  };
  c.derivatives = {{1, 2}};
  return c;
}

OperatorCase GeluForwardCase(int64_t rows, int64_t width) {
  OperatorCase c;
  c.name = Named("gelu_forward", {rows, width});
  c.operands = {In("x", {rows, width}), Out("y", {rows, width})};
  c.operands[0].scale = 3;
  c.run = [](const Views& v, Stream& s) { GeluForward(v[0], v[1], s); };
  c.reference = [](Values& v) { ref::GeluForward(v[0], v[1]); };
  return c;
}

OperatorCase GeluBackwardCase(int64_t rows, int64_t width) {
  OperatorCase c;
  c.name = Named("gelu_backward", {rows, width});
  c.operands = {In("dy", {rows, width}), In("x", {rows, width}), Out("dx", {rows, width})};
  c.operands[1].scale = 3;
  c.run = [](const Views& v, Stream& s) { GeluBackward(v[0], v[1], v[2], s); };
  c.reference = [](Values& v) { ref::GeluBackward(v[0], v[1], v[2]); };
  c.loss = [](const Values& v) {
    Doubles y(v[1].size());
    ref::GeluForward(v[1], y);
    return Dot(v[0], y);
  };
  c.derivatives = {{1, 2}};
  return c;
}

OperatorCase EmbeddingForwardCase(int64_t rows, int64_t width, int64_t entries, bool accumulate) {
  OperatorCase c;
  c.name = Named(accumulate ? "embedding_accumulate" : "embedding_forward", {rows, width, entries});
  c.operands = {Integers("ids", rows, entries), In("table", {entries, width}),
                accumulate ? Sum("out", {rows, width}) : Out("out", {rows, width})};
  c.run = [=](const Views& v, Stream& s) { EmbeddingForward(v[0], v[1], accumulate, v[2], s); };
  c.reference = [=](Values& v) { ref::EmbeddingForward(v[0], v[1], accumulate, v[2]); };
  c.tolerance = accumulate ? 1e-7 : 0;
  return c;
}

OperatorCase EmbeddingBackwardCase(int64_t rows, int64_t width, int64_t entries) {
  OperatorCase c;
  c.name = Named("embedding_backward", {rows, width, entries});
  c.operands = {Integers("ids", rows, entries), In("dout", {rows, width}),
                Sum("dtable", {entries, width}), In("table", {entries, width})};
  c.run = [](const Views& v, Stream& s) { EmbeddingBackward(v[0], v[1], v[2], s); };
  c.reference = [](Values& v) { ref::EmbeddingBackward(v[0], v[1], v[2]); };
  c.loss = [](const Values& v) {
    Doubles out(v[1].size());
    ref::EmbeddingForward(v[0], v[3], false, out);
    return Dot(v[1], out);
  };
  c.derivatives = {{3, 2}};
  // Sums of thousands in single precision.
  if (rows > 100 * entries) c.tolerance = 1e-5;
  return c;
}

OperatorCase ZeroCase(int64_t rows, int64_t width) {
  OperatorCase c;
  c.name = Named("zero", {rows, width});
  c.operands = {Out("x", {rows, width})};
  c.run = [](const Views& v, Stream& s) { Zero(v[0], s); };
  c.reference = [](Values& v) { v[0].assign(v[0].size(), 0); };
  c.tolerance = 0;
  return c;
}

OperatorCase CopyCase(const Shape& shape) {
  OperatorCase c;
  c.name = Named("copy", shape);
  c.operands = {In("x", shape), Out("y", shape)};
  c.run = [](const Views& v, Stream& s) { Copy(v[0], v[1], s); };
  c.reference = [](Values& v) { v[1] = v[0]; };
  c.tolerance = 0;
  return c;
}

OperatorCase ConvertCase(const Shape& shape) {
  OperatorCase c = CopyCase(shape);
  c.name = Named("convert", shape);
  c.run = [](const Views& v, Stream& s) { Convert(v[0], v[1], s); };
  return c;
}

OperatorCase AddCase(const Shape& shape) {
  OperatorCase c;
  c.name = Named("add", shape);
  c.operands = {In("x", shape), Sum("y", shape)};
  c.run = [](const Views& v, Stream& s) { Add(v[0], v[1], s); };
  c.reference = [](Values& v) {
    for (size_t i = 0; i < v[0].size(); ++i) v[1][i] += v[0][i];
  };
  c.tolerance = 1e-7;
  return c;
}

OperatorCase AddBiasCase(int64_t rows, int64_t width) {
  OperatorCase c;
  c.name = Named("add_bias", {rows, width});
  c.operands = {In("bias", {width}), Sum("y", {rows, width})};
  c.run = [](const Views& v, Stream& s) { AddBias(v[0], v[1], s); };
  c.reference = [](Values& v) { ref::AddBias(v[0], v[1]); };
  c.tolerance = 1e-7;
  return c;
}

OperatorCase BiasBackwardCase(int64_t rows, int64_t width) {
  OperatorCase c;
  c.name = Named("bias_backward", {rows, width});
  c.operands = {In("dy", {rows, width}), Sum("dbias", {width}), In("bias", {width})};
  c.run = [](const Views& v, Stream& s) { BiasBackward(v[0], v[1], s); };
  c.reference = [](Values& v) { ref::BiasBackward(v[0], v[1]); };
  c.loss = [](const Values& v) {
    Doubles y(v[0].size(), 0.0);
    ref::AddBias(v[2], y);
    return Dot(v[0], y);
  };
  c.derivatives = {{2, 1}};
  return c;
}

Operand Workspace(int64_t rows, int64_t vocabulary) {
  return {"workspace",
          {std::min(rows, CrossEntropyChunkRows(vocabulary)), vocabulary},
          Role::kScratch,
          Fill::kComputed};
}

OperatorCase CrossEntropyCase(int64_t rows, int64_t width, int64_t vocabulary) {
  OperatorCase c;
  c.name = Named("cross_entropy", {rows, width, vocabulary});
  c.operands = {In("hidden", {rows, width}), In("weight", {vocabulary, width}),
                Integers("targets", rows, vocabulary), Out("losses", {rows}),
                Workspace(rows, vocabulary)};
  c.run = [](const Views& v, Stream& s) {
    LinearCrossEntropy(v[0], v[1], v[2], v[3], TensorView(), TensorView(), v[4], s);
  };
  c.reference = [](Values& v) {
    ref::LinearCrossEntropy(v[0], v[1], v[2], v[3], nullptr, nullptr);
  };
  c.equal_bits = false;
  return c;
}

OperatorCase CrossEntropyGradientCase(int64_t rows, int64_t width, int64_t vocabulary) {
  OperatorCase c;
  c.name = Named("cross_entropy_gradient", {rows, width, vocabulary});
  c.operands = {In("hidden", {rows, width}),
                In("weight", {vocabulary, width}),
                Integers("targets", rows, vocabulary),
                Out("losses", {rows}),
                Out("dhidden", {rows, width}),
                Sum("dweight", {vocabulary, width}),
                Workspace(rows, vocabulary)};
  c.run = [](const Views& v, Stream& s) {
    LinearCrossEntropy(v[0], v[1], v[2], v[3], v[4], v[5], v[6], s);
  };
  c.reference = [](Values& v) { ref::LinearCrossEntropy(v[0], v[1], v[2], v[3], &v[4], &v[5]); };
  c.tolerance = 5e-6;
  c.equal_bits = false;
  c.loss = [](const Values& v) {
    Doubles losses(v[3].size());
    ref::LinearCrossEntropy(v[0], v[1], v[2], losses, nullptr, nullptr);
    return std::accumulate(losses.begin(), losses.end(), 0.0);
  };
  c.derivatives = {{0, 4}, {1, 5}};
  return c;
}

OperatorCase GradientStatisticsCase(int64_t count, Fill fill) {
  OperatorCase c;
  c.name = Named(fill == Fill::kNormal ? "gradient_statistics" : "gradient_statistics_non_finite",
                 {count});
  c.operands = {In("gradient", {count}), Sum("statistics", {3})};
  c.operands[0].fill = fill;
  c.operands[1].dtype = DType::kF64;
  c.run = [](const Views& v, Stream& s) { AccumulateGradientStatistics(v[0], v[1], s); };
  c.reference = [](Values& v) { ref::GradientStatistics(v[0], v[1]); };
  c.tolerance = 1e-13;
  return c;
}

OperatorCase AdamWCase(int64_t count, int64_t step) {
  OperatorCase c;
  c.name = Named("adamw_step" + std::to_string(step), {count});
  Operand second = InPlace("second_moment", {count});
  second.fill = Fill::kPositive;
  Operand adam_sum = Sum("adam_sum", {1});
  adam_sum.dtype = DType::kF64;
  c.operands = {In("gradient", {count}), InPlace("parameter", {count}),
                InPlace("first_moment", {count}), second, adam_sum};
  const AdamWParameters p{.rate = 3e-2,
                          .beta1 = 0.9,
                          .beta2 = 0.95,
                          .eps = 1e-8,
                          .weight_decay = 0.1,
                          .gradient_scale = 0.37,
                          .step = step};
  c.run = [=](const Views& v, Stream& s) { AdamWUpdate(p, v[0], v[1], v[2], v[3], s, v[4]); };
  c.reference = [=](Values& v) {
    const ref::AdamW twin{p.rate,         p.beta1,          p.beta2, p.eps,
                          p.weight_decay, p.gradient_scale, p.step};
    ref::AdamWUpdate(twin, v[0], v[1], v[2], v[3]);
    v[4][0] += ref::AdamSum(twin, v[0], v[3]);
  };
  c.tolerance = 5e-7;
  return c;
}

OperatorCase SgdCase(int64_t count) {
  OperatorCase c;
  c.name = Named("sgd", {count});
  c.operands = {In("gradient", {count}), InPlace("parameter", {count}),
                InPlace("momentum", {count})};
  const SgdParameters p{.rate = 3e-2, .momentum = 0.9, .weight_decay = 0.1, .gradient_scale = 0.37};
  c.run = [=](const Views& v, Stream& s) { SgdUpdate(p, v[0], v[1], v[2], s); };
  c.reference = [=](Values& v) {
    ref::SgdUpdate({p.rate, p.momentum, p.weight_decay, p.gradient_scale}, v[0], v[1], v[2]);
  };
  c.tolerance = 5e-7;
  return c;
}

// The case with some of its operands in bf16, where names begin with what an operator takes in
// bf16. Empty where none of its operands is among them.
std::vector<OperatorCase> InBf16(const OperatorCase& c) {
  // Of an operator: sets of operands that may be bf16 together.
  static const std::vector<std::pair<std::string, std::vector<std::vector<std::string>>>> kTakes = {
      {"rms_norm_forward", {{"weight", "y"}, {"x", "weight", "y"}}},
      {"rms_norm_backward", {{"weight", "dy"}, {"x", "dx", "weight", "dy"}}},
      {"layer_norm_forward", {{"weight", "bias", "y"}, {"x", "weight", "bias", "y"}}},
      {"layer_norm_backward", {{"weight", "dy"}, {"x", "dx", "weight", "dy"}}},
      {"swiglu", {{"dy", "gate_up", "dgate_up", "y"}}},
      {"gelu", {{"dy", "x", "dx", "y"}}},
      {"rope", {{"x", "dx"}}},
      {"embedding_backward", {{"dout"}}},
      {"embedding", {{"table"}, {"out"}, {"table", "out"}}},
      {"zero", {{"x"}}},
      {"copy", {{"x", "y"}}},
      {"convert", {{"x"}, {"y"}}},
      {"add_bias", {{"bias"}, {"y"}, {"bias", "y"}}},
      {"add", {{"x"}, {"y"}, {"x", "y"}}},
      {"bias_backward", {{"dy"}}},
      {"cross_entropy", {{"hidden", "weight", "dhidden"}}},
      {"gemm", {{"a", "b"}, {"a", "b", "c", "bias", "pre_activation"}}},
  };
  for (const auto& [name, sets] : kTakes) {
    if (c.name.rfind(name, 0) != 0) continue;
    std::vector<OperatorCase> cases;
    for (const std::vector<std::string>& narrow : sets) {
      OperatorCase made = c;
      made.name += "_bf16";
      for (Operand& operand : made.operands) {
        if (std::find(narrow.begin(), narrow.end(), operand.name) == narrow.end()) continue;
        operand.dtype = DType::kBF16;
        made.name += "_" + operand.name;
      }
      // The gradient of the logits is rounded before it goes into both products.
      if (name == "cross_entropy") made.tolerance = 1.0 / 256;
      // A GELU in a pass of its own acts on what was rounded, and rounds again.
      if (made.name.find("_gelu") != std::string::npos && narrow.size() > 2)
        made.tolerance = 1.0 / 128;
      cases.push_back(made);
    }
    return cases;
  }
  return {};
}

}  // namespace

std::vector<OperatorCase> OperatorCases() {
  std::vector<OperatorCase> cases;
  using MatrixCase = OperatorCase (*)(int64_t, int64_t);
  // One column, one row, widths that no vector divides, and more rows than one task takes.
  for (MatrixCase make : {&RmsNormForwardCase, &RmsNormBackwardCase, &LayerNormForwardCase,
                          &LayerNormBackwardCase, &SwiGluForwardCase, &SwiGluBackwardCase,
                          &GeluForwardCase, &GeluBackwardCase, &AddBiasCase, &BiasBackwardCase}) {
    cases.push_back(make(4, 1));
    cases.push_back(make(1, 384));
    cases.push_back(make(3, 7));
    cases.push_back(make(2, 4096));
    cases.push_back(make(37, 1031));
    cases.push_back(make(1000, 96));
    cases.push_back(Padded(make(5, 33)));
    cases.push_back(Padded(make(300, 64)));
  }
  for (auto make : {&RopeForwardCase, &RopeBackwardCase}) {
    cases.push_back(make(1, 1, 2, 10));
    cases.push_back(make(5, 3, 14, 2000));
    cases.push_back(make(1000, 3, 32, 4096));
    // Two million positions: where f32 angles would be noise.
    cases.push_back(Padded(make(40, 2, 128, 2 << 20)));
  }
  for (bool accumulate : {false, true}) {
    cases.push_back(EmbeddingForwardCase(1, 1, 1, accumulate));
    cases.push_back(EmbeddingForwardCase(1000, 130, 77, accumulate));
    cases.push_back(Padded(EmbeddingForwardCase(9, 33, 5, accumulate)));
  }
  cases.push_back(EmbeddingBackwardCase(1, 1, 1));
  cases.push_back(EmbeddingBackwardCase(1000, 130, 77));
  cases.push_back(Padded(EmbeddingBackwardCase(50, 131, 5)));
  // All rows have one id; a few ids with rows enough for several pieces; as many as a piece has.
  cases.push_back(EmbeddingBackwardCase(3000, 40, 1));
  cases.push_back(EmbeddingBackwardCase(64, 7, 1));
  cases.push_back(EmbeddingBackwardCase(65, 1030, 1));
  cases.push_back(Padded(EmbeddingBackwardCase(2500, 13, 3)));
  // Ids of two and of three digits, in several tiles.
  cases.push_back(EmbeddingBackwardCase(5000, 4, 1000));
  cases.push_back(EmbeddingBackwardCase(2049, 8, 70000));

  cases.push_back(ZeroCase(1, 1));
  cases.push_back(ZeroCase(1000, 384));
  for (auto make : {&CopyCase, &ConvertCase, &AddCase}) {
    cases.push_back(make({7}));
    cases.push_back(make({100003}));
    cases.push_back(make({1000, 384}));
    cases.push_back(make({5, 3, 33}));
    cases.push_back(Padded(make({1000, 37})));
    cases.push_back(Padded(make({5, 3, 33})));
  }

  for (auto make : {&CrossEntropyCase, &CrossEntropyGradientCase}) {
    cases.push_back(make(1, 8, 3));
    cases.push_back(make(33, 17, 101));
    cases.push_back(Padded(make(40, 32, 257)));
    // Two chunks of rows.
    cases.push_back(make(70, 3, 66001));
  }

  for (OperatorCase& c : MatrixProductCases()) cases.push_back(std::move(c));

  cases.push_back(GradientStatisticsCase(1, Fill::kNormal));
  cases.push_back(GradientStatisticsCase(100003, Fill::kNormal));
  cases.push_back(GradientStatisticsCase(100003, Fill::kNonFinite));
  cases.push_back(AdamWCase(1, 1));
  cases.push_back(AdamWCase(100003, 1));
  cases.push_back(AdamWCase(100003, 1000));
  cases.push_back(SgdCase(1));
  cases.push_back(SgdCase(100003));
  return cases;
}

namespace {

// Worth a case, but not one for every dtype.
bool IsLarge(const OperatorCase& c) {
  for (const Operand& operand : c.operands) {
    int64_t elements = 1;
    for (int64_t extent : operand.shape) elements *= extent;
    if (elements > 1000000) return true;
  }
  return false;
}

}  // namespace

std::vector<OperatorCase> GpuOperatorCases() {
  std::vector<OperatorCase> cases = OperatorCases();
  const size_t wide = cases.size();
  for (size_t i = 0; i < wide; ++i) {
    if (IsLarge(cases[i])) continue;
    for (OperatorCase& c : InBf16(cases[i])) cases.push_back(std::move(c));
  }
  return cases;
}

}  // namespace longspan
