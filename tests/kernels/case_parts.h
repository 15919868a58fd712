// What tables of operator cases are written in: operands by role, names, strides.
#ifndef LONGSPAN_TESTS_KERNELS_CASE_PARTS_H_
#define LONGSPAN_TESTS_KERNELS_CASE_PARTS_H_

#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "operator_cases.h"

namespace longspan {

using reference::Doubles;
using Values = std::vector<Doubles>;
using Views = std::vector<TensorView>;
using Shape = std::vector<int64_t>;

inline Operand In(const std::string& name, Shape shape) { return {name, std::move(shape)}; }
inline Operand Out(const std::string& name, Shape shape) {
  return {name, std::move(shape), Role::kWritten};
}
inline Operand Sum(const std::string& name, Shape shape) {
  return {name, std::move(shape), Role::kAccumulated};
}
inline Operand InPlace(const std::string& name, Shape shape) {
  return {name, std::move(shape), Role::kInPlace};
}
inline Operand Positive(const std::string& name, Shape shape) {
  return {name, std::move(shape), Role::kInput, Fill::kPositive};
}
inline Operand Computed(const std::string& name, Shape shape) {
  return {name, std::move(shape), Role::kInput, Fill::kComputed};
}
inline Operand Integers(const std::string& name, int64_t count, int64_t limit) {
  return {name, {count}, Role::kInput, Fill::kIntegers, DType::kI32, 1, limit};
}

inline std::string Named(const std::string& name, const Shape& shape) {
  std::string text = name;
  for (size_t i = 0; i < shape.size(); ++i) {
    text += i == 0 ? '_' : 'x';
    text += std::to_string(shape[i]);
  }
  return text;
}

inline double Dot(const Doubles& a, const Doubles& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// With gaps between rows.
inline OperatorCase Padded(OperatorCase c) {
  c.name += "_strided";
  c.row_padding = 3;
  return c;
}

}  // namespace longspan

#endif  // LONGSPAN_TESTS_KERNELS_CASE_PARTS_H_
