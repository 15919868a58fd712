// The cases of matrix products and their epilogues.
#include "case_parts.h"
#include "kernels/gemm.h"

namespace longspan {
namespace {

namespace ref = reference;

struct GemmOptions {
  Transpose transpose_a = Transpose::kNo, transpose_b = Transpose::kNo;
  float beta = 0;
  Epilogue::Kind epilogue = Epilogue::Kind::kNone;
  float alpha = 0.5f;
};

const char* SuffixOf(Epilogue::Kind kind) {
  switch (kind) {
    case Epilogue::Kind::kBias:
      return "_bias";
    case Epilogue::Kind::kBiasGelu:
      return "_bias_gelu";
    case Epilogue::Kind::kGeluGradient:
      return "_gelu_gradient";
    case Epilogue::Kind::kBiasGradient:
      return "_bias_gradient";
    default:
      return "";
  }
}

Epilogue EpilogueOf(Epilogue::Kind kind, const Views& v) {
  switch (kind) {
    case Epilogue::Kind::kBias:
      return Epilogue::Bias(v[3]);
    case Epilogue::Kind::kBiasGelu:
      return Epilogue::BiasGelu(v[3], v[4]);
    case Epilogue::Kind::kGeluGradient:
      return Epilogue::GeluGradient(v[3]);
    case Epilogue::Kind::kBiasGradient:
      return Epilogue::BiasGradient(v[3]);
    default:
      return {};
  }
}

// Operands behind a, b and c, their twins, and what the product is the gradient of.
void AddEpilogue(const ref::MatrixProduct& product, Epilogue::Kind kind, OperatorCase& c) {
  const Shape matrix = {product.m, product.n}, row = {product.n};
  const auto plain = c.reference;
  switch (kind) {
    case Epilogue::Kind::kBias:
      c.operands.push_back(In("bias", row));
      c.reference = [=](Values& v) {
        plain(v);
        ref::AddBias(v[3], v[2]);
      };
      return;
    case Epilogue::Kind::kBiasGelu:
      c.operands.push_back(In("bias", row));
      c.operands.push_back(Out("pre_activation", matrix));
      c.reference = [=](Values& v) {
        plain(v);
        ref::AddBias(v[3], v[2]);
        v[4] = v[2];
        ref::GeluForward(v[4], v[2]);
      };
      return;
    case Epilogue::Kind::kGeluGradient:
      c.operands.push_back(In("pre_activation", matrix));
      c.operands.back().scale = 2;
      c.reference = [=](Values& v) {
        plain(v);
        const Doubles dy = v[2];
        ref::GeluBackward(dy, v[3], v[2]);
      };
      c.loss = [=](const Values& v) {
        Doubles dy(v[2].size()), y(v[2].size());
        ref::Gemm(product, v[0], v[1], dy);
        ref::GeluForward(v[3], y);
        return Dot(dy, y);
      };
      c.derivatives = {{3, 2}};
      return;
    case Epilogue::Kind::kBiasGradient:
      c.operands.push_back(Sum("dbias", row));
      c.operands.push_back(In("weight", matrix));
      c.operands.push_back(In("bias", row));
      c.reference = [=](Values& v) {
        plain(v);
        ref::BiasBackward(v[1], v[3]);
      };
      c.loss = [=](const Values& v) {
        ref::MatrixProduct fresh = product;
        fresh.beta = 0;
        Doubles dweight(v[2].size()), y(v[1].size(), 0.0);
        ref::Gemm(fresh, v[0], v[1], dweight);
        ref::AddBias(v[5], y);
        return Dot(v[4], dweight) + Dot(v[1], y);
      };
      c.derivatives = {{4, 2}, {5, 3}};
      return;
    default:
      return;
  }
}

OperatorCase GemmCase(int64_t m, int64_t n, int64_t k, GemmOptions o) {
  const bool a_across = o.transpose_a == Transpose::kYes,
             b_across = o.transpose_b == Transpose::kYes;
  OperatorCase c;
  c.name =
      Named(std::string("gemm_") + (a_across ? "t" : "n") + (b_across ? "t" : "n") +
                (o.beta == 0 ? "" : "_sum") + (o.alpha == 1 ? "_whole" : "") + SuffixOf(o.epilogue),
            {m, n, k});
  c.operands = {In("a", a_across ? Shape{k, m} : Shape{m, k}),
                In("b", b_across ? Shape{n, k} : Shape{k, n}),
                o.beta == 0 ? Out("c", {m, n}) : Sum("c", {m, n})};
  c.run = [=](const Views& v, Stream& s) {
    Gemm(o.transpose_a, o.transpose_b, o.alpha, v[0], v[1], o.beta, v[2], s,
         EpilogueOf(o.epilogue, v));
  };
  const ref::MatrixProduct product{m, n, k, a_across, b_across, o.alpha, o.beta};
  c.reference = [=](Values& v) { ref::Gemm(product, v[0], v[1], v[2]); };
  c.tolerance = 5e-6;
  c.equal_bits = false;
  AddEpilogue(product, o.epilogue, c);
  return c;
}

}  // namespace

std::vector<OperatorCase> MatrixProductCases() {
  std::vector<OperatorCase> cases;
  for (Transpose a : {Transpose::kNo, Transpose::kYes}) {
    for (Transpose b : {Transpose::kNo, Transpose::kYes}) {
      cases.push_back(GemmCase(5, 7, 9, {a, b}));
      cases.push_back(GemmCase(96, 64, 200, {a, b, 1}));
      cases.push_back(Padded(GemmCase(33, 17, 40, {a, b, -0.25})));
    }
  }
  cases.push_back(GemmCase(1, 1, 1, {}));
  // Epilogues: aligned rows, which libraries fuse, and others, which they do not.
  using Kind = Epilogue::Kind;
  const auto with = [&](GemmOptions o) {
    cases.push_back(GemmCase(1, 1, 1, o));
    cases.push_back(GemmCase(70, 48, 64, o));
    cases.push_back(GemmCase(150, 200, 130, o));
    cases.push_back(GemmCase(37, 43, 19, o));
    cases.push_back(Padded(GemmCase(7, 13, 64, o)));
    cases.push_back(Padded(GemmCase(33, 17, 40, o)));
  };
  for (Transpose b : {Transpose::kNo, Transpose::kYes}) {
    with({Transpose::kNo, b, 0, Kind::kBias});
    with({Transpose::kNo, b, 1, Kind::kBias});
    with({Transpose::kNo, b, 0, Kind::kBiasGelu});
    with({Transpose::kNo, b, 0, Kind::kGeluGradient});
  }
  with({Transpose::kYes, Transpose::kNo, 0, Kind::kGeluGradient});
  for (Transpose a : {Transpose::kNo, Transpose::kYes}) {
    with({a, Transpose::kNo, 1, Kind::kBiasGradient, 1.0f});
    with({a, Transpose::kNo, 0, Kind::kBiasGradient, 1.0f});
  }
  with({Transpose::kYes, Transpose::kNo, 1, Kind::kBiasGradient});
  return cases;
}

}  // namespace longspan
