#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <sstream>

#include "operator_cases.h"

namespace longspan {
namespace {

// What lies between rows: a value that no operator computes by accident, negative so that integers
// can hold it too.
constexpr float kPaddingValue = -8675309.0f;

uint32_t SeedOf(const std::string& name) {
  uint32_t hash = 2166136261u;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

// To the nearest bf16, ties to even.
uint16_t Bf16Bits(double value) {
  const uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(value));
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

double Bf16Value(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

void Store(char* at, DType dtype, double value) {
  if (dtype == DType::kF32) {
    const float rounded = static_cast<float>(value);
    std::memcpy(at, &rounded, sizeof(rounded));
  } else if (dtype == DType::kF64) {
    std::memcpy(at, &value, sizeof(value));
  } else if (dtype == DType::kBF16) {
    const uint16_t bits = Bf16Bits(value);
    std::memcpy(at, &bits, sizeof(bits));
  } else {
    LONGSPAN_CHECK(dtype == DType::kI32, "cases hold f32, bf16, f64 and i32");
    const int32_t integer = static_cast<int32_t>(value);
    std::memcpy(at, &integer, sizeof(integer));
  }
}

double Load(const char* at, DType dtype) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  if (dtype == DType::kF64) {
    double value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  if (dtype == DType::kBF16) {
    uint16_t bits;
    std::memcpy(&bits, at, sizeof(bits));
    return Bf16Value(bits);
  }
  int32_t value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

double Rounded(double value, DType dtype) {
  if (dtype == DType::kBF16) return Bf16Value(Bf16Bits(value));
  return dtype == DType::kF32 ? static_cast<double>(static_cast<float>(value)) : value;
}

reference::Doubles Fresh(const Operand& operand, int64_t elements, std::mt19937& random) {
  std::normal_distribution<double> normal(0, operand.scale);
  std::uniform_real_distribution<double> positive(0.5 * operand.scale, 1.5 * operand.scale);
  std::uniform_int_distribution<int64_t> integer(0, std::max<int64_t>(0, operand.limit - 1));
  reference::Doubles values(elements, 0.0);
  for (int64_t i = 0; i < elements; ++i) {
    switch (operand.fill) {
      case Fill::kNormal:
        values[i] = normal(random);
        break;
      case Fill::kPositive:
        values[i] = positive(random);
        break;
      case Fill::kIntegers:
        values[i] = static_cast<double>(integer(random));
        break;
      case Fill::kComputed:
        break;
      case Fill::kNonFinite:
        values[i] = normal(random);
        if (i % 97 == 5) values[i] = std::numeric_limits<double>::quiet_NaN();
        if (i % 97 == 41) values[i] = -std::numeric_limits<double>::infinity();
        break;
    }
    values[i] = Rounded(values[i], operand.dtype);
  }
  return values;
}

}  // namespace

CaseOperands::CaseOperands(const OperatorCase& operator_case) : case_(operator_case) {
  std::mt19937 random(SeedOf(case_.name));
  const int count = static_cast<int>(case_.operands.size());
  for (int k = 0; k < count; ++k)
    initial_.push_back(Fresh(case_.operands[k], Rows(k) * RowElements(k), random));
  if (case_.prepare) case_.prepare(initial_);
  for (int k = 0; k < count; ++k) {
    const Operand& operand = case_.operands[k];
    for (double& value : initial_[k]) value = Rounded(value, operand.dtype);
    const int64_t size = SizeOf(operand.dtype);
    std::vector<char>& bytes = storage_.emplace_back(Rows(k) * RowStride(k) * size, '\xff');
    if (operand.role == Role::kScratch) continue;
    for (int64_t i = 0; i < Rows(k) * RowStride(k); ++i) {
      const int64_t row = i / RowStride(k), column = i % RowStride(k);
      double value = kPaddingValue;
      if (column < RowElements(k)) {
        value = operand.role == Role::kWritten ? std::numeric_limits<double>::quiet_NaN()
                                               : initial_[k][row * RowElements(k) + column];
      }
      Store(bytes.data() + i * size, operand.dtype, value);
    }
  }
}

int64_t CaseOperands::Rows(int operand) const {
  const std::vector<int64_t>& shape = case_.operands[operand].shape;
  return shape.size() >= 2 ? shape[0] : 1;
}

int64_t CaseOperands::RowElements(int operand) const {
  const std::vector<int64_t>& shape = case_.operands[operand].shape;
  int64_t elements = 1;
  for (size_t axis = shape.size() >= 2 ? 1 : 0; axis < shape.size(); ++axis)
    elements *= shape[axis];
  return elements;
}

int64_t CaseOperands::RowStride(int operand) const {
  const Operand& o = case_.operands[operand];
  const bool padded = o.shape.size() >= 2 && o.role != Role::kScratch;
  return RowElements(operand) + (padded ? case_.row_padding : 0);
}

std::vector<TensorView> CaseOperands::Views(const std::vector<void*>& memory) const {
  std::vector<TensorView> views;
  for (int k = 0; k < static_cast<int>(case_.operands.size()); ++k) {
    const Operand& operand = case_.operands[k];
    if (operand.shape.size() == 1) {
      views.emplace_back(memory[k], operand.dtype, std::initializer_list<int64_t>{RowElements(k)});
      continue;
    }
    const TensorView whole(memory[k], operand.dtype, {Rows(k), RowStride(k)});
    const TensorView matrix = whole.Slice(1, 0, RowElements(k));
    views.push_back(operand.shape.size() == 2
                        ? matrix
                        : matrix.Reshape({Rows(k), operand.shape[1], operand.shape[2]}));
  }
  return views;
}

std::vector<TensorView> CaseOperands::Views() {
  std::vector<void*> memory;
  for (std::vector<char>& bytes : storage_) memory.push_back(bytes.data());
  return Views(memory);
}

reference::Doubles CaseOperands::Values(int operand) const {
  const int64_t size = SizeOf(case_.operands[operand].dtype);
  reference::Doubles values;
  for (int64_t row = 0; row < Rows(operand); ++row) {
    for (int64_t column = 0; column < RowElements(operand); ++column) {
      const int64_t at = (row * RowStride(operand) + column) * size;
      values.push_back(Load(storage_[operand].data() + at, case_.operands[operand].dtype));
    }
  }
  return values;
}

bool CaseOperands::PaddingIntact() const {
  for (int k = 0; k < static_cast<int>(case_.operands.size()); ++k) {
    const DType dtype = case_.operands[k].dtype;
    for (int64_t row = 0; row < Rows(k); ++row) {
      for (int64_t column = RowElements(k); column < RowStride(k); ++column) {
        const char* at = storage_[k].data() + (row * RowStride(k) + column) * SizeOf(dtype);
        if (Load(at, dtype) != Rounded(kPaddingValue, dtype)) return false;
      }
    }
  }
  return true;
}

std::string Disagreement(const std::string& name, const reference::Doubles& got,
                         const reference::Doubles& wanted, double tolerance) {
  std::ostringstream message;
  if (got.size() != wanted.size()) {
    message << name << " has " << got.size() << " elements, not " << wanted.size();
    return message.str();
  }
  double squares = 0;
  for (double value : wanted) squares += value * value;
  const double typical = wanted.empty() ? 0 : std::sqrt(squares / wanted.size());
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double excess =
        std::abs(got[i] - wanted[i]) / (tolerance * (std::abs(wanted[i]) + typical) + 1e-30);
    if (!(excess <= worst)) {
      worst = excess;
      at = i;
      if (std::isnan(excess)) break;
    }
  }
  if (worst <= 1) return "";
  message.precision(9);
  message << name << "[" << at << "] is " << got[at] << ", not " << wanted[at] << ": " << worst
          << " times the tolerance";
  return message.str();
}

}  // namespace longspan
