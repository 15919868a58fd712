// One table of operator cases serves every use: agreement with the FP64 reference, gradients
// against finite differences, equal bits on any number of threads, other back ends (tests/gpu), and
// speed. What only a GPU takes, bf16, comes from the same cases.
//
// To add an operator: (1) write its FP64 twin in reference.h; (2) add a function to
// operator_cases.cc that makes an OperatorCase of a shape: operands in the order of the call,
// `run`, `reference`, and for a backward pass `loss` and which operand holds the derivative by
// which; (3) call it for a few shapes in OperatorCases().
#ifndef LONGSPAN_TESTS_KERNELS_OPERATOR_CASES_H_
#define LONGSPAN_TESTS_KERNELS_OPERATOR_CASES_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"
#include "reference.h"

namespace longspan {

enum class Role {
  kInput,        // only read
  kWritten,      // starts as NaN: every element must be written
  kAccumulated,  // +=, starts with random values
  kInPlace,      // read and replaced
  kScratch,      // contents do not matter
};

enum class Fill {
  kNormal,     // N(0, scale)
  kPositive,   // uniform in [0.5, 1.5) * scale
  kIntegers,   // uniform in [0, limit), as i32
  kComputed,   // by OperatorCase::prepare
  kNonFinite,  // kNormal with a NaN or an infinity every 97 elements
};

struct Operand {
  std::string name;
  std::vector<int64_t> shape;
  Role role = Role::kInput;
  Fill fill = Fill::kNormal;
  DType dtype = DType::kF32;
  double scale = 1;
  int64_t limit = 0;
};

// Operand `gradient` holds (or has gained, where it accumulates) d loss / d operand `input`.
struct Derivative {
  int input = 0;
  int gradient = 0;
};

struct OperatorCase {
  using Doubles = reference::Doubles;

  std::string name;  // "rms_norm_forward_5x33"
  std::vector<Operand> operands;
  // Elements between the rows of operands with two or more dimensions, to show that strides are
  // honoured.
  int64_t row_padding = 0;
  // Fills operands that an earlier pass computes (Fill::kComputed). May be empty.
  std::function<void(std::vector<Doubles>&)> prepare;
  std::function<void(const std::vector<TensorView>&, Stream&)> run;
  // The same in FP64, on one vector for each operand.
  std::function<void(std::vector<Doubles>&)> reference;
  // A scalar of the operands, for finite differences. Empty for forward passes.
  std::function<double(const std::vector<Doubles>&)> loss;
  std::vector<Derivative> derivatives;
  // |got - wanted| <= tolerance * (|wanted| + root mean square of the wanted tensor).
  double tolerance = 2e-6;
  // Whether results have the same bits on any number of threads. Not where a matrix product is
  // inside, which the library computes differently for another cut.
  bool equal_bits = true;
};

inline std::ostream& operator<<(std::ostream& out, const OperatorCase& c) { return out << c.name; }

// The table, f32.
std::vector<OperatorCase> OperatorCases();
// The part of it that is matrix products (matrix_product_cases.cc).
std::vector<OperatorCase> MatrixProductCases();
// The table, and cases with bf16 operands.
std::vector<OperatorCase> GpuOperatorCases();

// What a result may differ by: a bf16 one was rounded, to 8 bits.
inline double ToleranceOf(const OperatorCase& c, const Operand& operand) {
  return operand.dtype == DType::kBF16 ? std::max(c.tolerance, 1.0 / 256) : c.tolerance;
}

// The operands of one case in host memory, filled from a seed that follows from the case's name.
// The same values, rounded to the operands' dtypes, are given as doubles for the reference.
class CaseOperands {
 public:
  explicit CaseOperands(const OperatorCase& operator_case);

  // Values before the operator ran.
  const std::vector<reference::Doubles>& initial() const { return initial_; }
  // Memory of each operand, padding included.
  std::vector<std::vector<char>>& storage() { return storage_; }
  // Views of memory laid out like storage(), wherever it is.
  std::vector<TensorView> Views(const std::vector<void*>& memory) const;
  // Views of storage() itself.
  std::vector<TensorView> Views();
  // What storage() holds now for one operand, without padding.
  reference::Doubles Values(int operand) const;
  // Whether nothing was written between rows.
  bool PaddingIntact() const;

 private:
  int64_t Rows(int operand) const;
  int64_t RowElements(int operand) const;
  int64_t RowStride(int operand) const;

  const OperatorCase& case_;
  std::vector<reference::Doubles> initial_;
  std::vector<std::vector<char>> storage_;
};

// Which element differs by more than the tolerance, as a message; empty when none does.
std::string Disagreement(const std::string& name, const reference::Doubles& got,
                         const reference::Doubles& wanted, double tolerance);

}  // namespace longspan

#endif  // LONGSPAN_TESTS_KERNELS_OPERATOR_CASES_H_
