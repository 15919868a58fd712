#include "runtime/cost/cost_fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace longspan {
namespace {

constexpr int kCoefficients = 5;
// Attention, linear, ring, ring step, micro-batch.
using Vector = std::array<double, kCoefficients>;
using Matrix = std::array<Vector, kCoefficients>;

// What each coefficient is multiplied with.
Vector Factors(const MicroBatchLoad& load, bool transfer_bound) {
  const double d = load.members;
  Vector factors{};
  factors[0] =
      transfer_bound ? static_cast<double>(load.ring_pairs) / d : static_cast<double>(load.pairs);
  factors[1] = static_cast<double>(load.tokens);
  factors[2] = transfer_bound ? static_cast<double>(load.ring_tokens) * (d - 1) / d : 0;
  factors[3] = d - 1;
  factors[4] = 1;
  return factors;
}

double Dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (int i = 0; i < kCoefficients; ++i) sum += a[i] * b[i];
  return sum;
}

double Seconds(const Vector& x, const MicroBatchLoad& load) {
  const double compute = Dot(x, Factors(load, false));
  return load.members == 1 ? compute : std::max(compute, Dot(x, Factors(load, true)));
}

double SquaredError(const Vector& x, const std::vector<CostSample>& samples) {
  double sum = 0;
  for (const CostSample& sample : samples) {
    const double error = Seconds(x, sample.load) / sample.seconds - 1;
    sum += error * error;
  }
  return sum;
}

// Solves the normal equations over the coefficients in `support`; nothing where they are singular
// or the solution is negative.
std::optional<Vector> Solve(Matrix a, Vector b, unsigned support) {
  for (int i = 0; i < kCoefficients; ++i) {
    if (support >> i & 1) continue;
    for (int j = 0; j < kCoefficients; ++j) a[i][j] = a[j][i] = 0;
    a[i][i] = 1;
    b[i] = 0;
  }
  for (int column = 0; column < kCoefficients; ++column) {
    int pivot = column;
    for (int row = column + 1; row < kCoefficients; ++row) {
      if (std::abs(a[row][column]) > std::abs(a[pivot][column])) pivot = row;
    }
    if (std::abs(a[pivot][column]) < 1e-11) return std::nullopt;
    std::swap(a[pivot], a[column]);
    std::swap(b[pivot], b[column]);
    for (int row = 0; row < kCoefficients; ++row) {
      if (row == column) continue;
      const double factor = a[row][column] / a[column][column];
      for (int j = column; j < kCoefficients; ++j) a[row][j] -= factor * a[column][j];
      b[row] -= factor * b[column];
    }
  }
  Vector x{};
  for (int i = 0; i < kCoefficients; ++i) {
    x[i] = b[i] / a[i][i];
    if (x[i] < 0) return std::nullopt;
  }
  return x;
}

// The best non-negative solution with every sample on a given piece: five coefficients have few
// supports, so all are tried.
Vector FitPieces(const std::vector<CostSample>& samples, const std::vector<bool>& transfer_bound) {
  std::vector<Vector> rows;
  Vector scale{};  // columns are brought to unit length
  for (size_t i = 0; i < samples.size(); ++i) {
    Vector row = Factors(samples[i].load, transfer_bound[i]);
    for (int j = 0; j < kCoefficients; ++j) {
      row[j] /= samples[i].seconds;
      scale[j] += row[j] * row[j];
    }
    rows.push_back(row);
  }
  for (double& length : scale) length = length > 0 ? std::sqrt(length) : 1;
  Matrix a{};
  Vector b{};
  for (const Vector& row : rows) {
    for (int i = 0; i < kCoefficients; ++i) {
      b[i] += row[i] / scale[i];
      for (int j = 0; j < kCoefficients; ++j) a[i][j] += row[i] / scale[i] * (row[j] / scale[j]);
    }
  }
  Vector best{};
  double least = std::numeric_limits<double>::infinity();
  for (unsigned support = 1; support < 1u << kCoefficients; ++support) {
    std::optional<Vector> x = Solve(a, b, support);
    if (!x.has_value()) continue;
    for (int i = 0; i < kCoefficients; ++i) (*x)[i] /= scale[i];
    double error = 0;
    for (const Vector& row : rows) error += std::pow(Dot(*x, row) - 1, 2);
    if (error < least) {
      least = error;
      best = *x;
    }
  }
  return best;
}

}  // namespace

double MicroBatchSeconds(const CostModel& cost, const MicroBatchLoad& load) {
  return Seconds({cost.attention_seconds_per_pair, cost.linear_seconds_per_token,
                  cost.ring_seconds_per_token, cost.ring_step_seconds, cost.micro_batch_seconds},
                 load);
}

absl::StatusOr<CostFit> FitCost(const std::vector<CostSample>& samples) {
  if (samples.size() < 3) {
    return absl::InvalidArgumentError(
        absl::StrCat("cost fit: ", samples.size(), " measurements; at least three are needed"));
  }
  for (const CostSample& sample : samples) {
    if (!(sample.seconds > 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("cost fit: a measured time of ", sample.seconds, " s"));
    }
  }
  Vector best{};
  double least = std::numeric_limits<double>::infinity();
  for (const bool start : {false, true}) {
    std::vector<bool> transfer_bound;
    for (const CostSample& sample : samples) {
      transfer_bound.push_back(start && sample.load.members > 1);
    }
    constexpr int kMostTurns = 30;
    for (int turn = 0; turn < kMostTurns; ++turn) {
      const Vector x = FitPieces(samples, transfer_bound);
      if (const double error = SquaredError(x, samples); error < least) {
        least = error;
        best = x;
      }
      std::vector<bool> next;
      for (const CostSample& sample : samples) {
        next.push_back(sample.load.members > 1 &&
                       Dot(x, Factors(sample.load, true)) > Dot(x, Factors(sample.load, false)));
      }
      if (next == transfer_bound) break;
      transfer_bound = std::move(next);
    }
  }
  CostFit fit;
  fit.cost = {best[0], best[1], best[2], best[3], best[4], {}};
  std::vector<double> errors;
  for (const CostSample& sample : samples) {
    fit.fitted_seconds.push_back(Seconds(best, sample.load));
    errors.push_back(std::abs(fit.fitted_seconds.back() / sample.seconds - 1));
  }
  std::sort(errors.begin(), errors.end());
  fit.median_error = errors[errors.size() / 2];
  fit.worst_error = errors.back();
  return fit;
}

}  // namespace longspan
