// The FP64 twins of the operators: plain loops, nothing shared with the kernels, meant to be read
// beside the formula. Tensors are contiguous vectors of doubles in row order; ids and positions are
// doubles too. Backward twins accumulate or overwrite exactly where kernels/*.h says so.
#ifndef LONGSPAN_TESTS_KERNELS_REFERENCE_H_
#define LONGSPAN_TESTS_KERNELS_REFERENCE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace longspan::reference {

using Doubles = std::vector<double>;

inline void RmsNormForward(const Doubles& x, const Doubles& weight, double eps, Doubles& y,
                           Doubles& rstd) {
  const size_t width = weight.size(), rows = x.size() / width;
  for (size_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (size_t c = 0; c < width; ++c) squares += x[r * width + c] * x[r * width + c];
    rstd[r] = 1 / std::sqrt(squares / width + eps);
    for (size_t c = 0; c < width; ++c) y[r * width + c] = x[r * width + c] * rstd[r] * weight[c];
  }
}

inline void RmsNormBackward(const Doubles& dy, const Doubles& x, const Doubles& weight,
                            const Doubles& rstd, Doubles& dx, Doubles& dweight) {
  const size_t width = weight.size(), rows = x.size() / width;
  for (size_t r = 0; r < rows; ++r) {
    double dot = 0;
    for (size_t c = 0; c < width; ++c) dot += dy[r * width + c] * weight[c] * x[r * width + c];
    for (size_t c = 0; c < width; ++c) {
      const size_t i = r * width + c;
      dx[i] += rstd[r] * dy[i] * weight[c] - x[i] * dot * std::pow(rstd[r], 3) / width;
      dweight[c] += dy[i] * x[i] * rstd[r];
    }
  }
}

inline void LayerNormForward(const Doubles& x, const Doubles& weight, const Doubles& bias,
                             double eps, Doubles& y, Doubles& mean, Doubles& rstd) {
  const size_t width = weight.size(), rows = x.size() / width;
  for (size_t r = 0; r < rows; ++r) {
    double sum = 0, squares = 0;
    for (size_t c = 0; c < width; ++c) sum += x[r * width + c];
    mean[r] = sum / width;
    for (size_t c = 0; c < width; ++c) squares += std::pow(x[r * width + c] - mean[r], 2);
    rstd[r] = 1 / std::sqrt(squares / width + eps);
    for (size_t c = 0; c < width; ++c)
      y[r * width + c] = (x[r * width + c] - mean[r]) * rstd[r] * weight[c] + bias[c];
  }
}

inline void LayerNormBackward(const Doubles& dy, const Doubles& x, const Doubles& weight,
                              const Doubles& mean, const Doubles& rstd, Doubles& dx,
                              Doubles& dweight, Doubles& dbias) {
  const size_t width = weight.size(), rows = x.size() / width;
  for (size_t r = 0; r < rows; ++r) {
    double sum = 0, dot = 0;
    for (size_t c = 0; c < width; ++c) {
      const size_t i = r * width + c;
      const double normalized = (x[i] - mean[r]) * rstd[r];
      sum += dy[i] * weight[c];
      dot += dy[i] * weight[c] * normalized;
      dweight[c] += dy[i] * normalized;
      dbias[c] += dy[i];
    }
    for (size_t c = 0; c < width; ++c) {
      const size_t i = r * width + c;
      const double normalized = (x[i] - mean[r]) * rstd[r];
      dx[i] += rstd[r] * (dy[i] * weight[c] - sum / width - normalized * dot / width);
    }
  }
}

// x: (rows, heads, head_dim), rotated in place, back with direction = -1.
inline void Rope(const Doubles& positions, int64_t heads, int64_t head_dim, double base,
                 double direction, Doubles& x) {
  const int64_t half = head_dim / 2;
  for (int64_t r = 0; r < static_cast<int64_t>(positions.size()); ++r) {
    for (int64_t i = 0; i < half; ++i) {
      const long double frequency = std::pow(static_cast<long double>(base), -2.0L * i / head_dim);
      const long double angle = positions[r] * frequency;
      const double c = std::cos(angle), s = direction * static_cast<double>(std::sin(angle));
      for (int64_t h = 0; h < heads; ++h) {
        double* const head = x.data() + (r * heads + h) * head_dim;
        const double a = head[i], b = head[i + half];
        head[i] = a * c - b * s;
        head[i + half] = b * c + a * s;
      }
    }
  }
}

inline double Silu(double x) { return x / (1 + std::exp(-x)); }

inline void SwiGluForward(const Doubles& gate_up, int64_t ffn, Doubles& y) {
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t gate = i / ffn * 2 * ffn + i % ffn;
    y[i] = Silu(gate_up[gate]) * gate_up[gate + ffn];
  }
}

inline void SwiGluBackward(const Doubles& dy, const Doubles& gate_up, int64_t ffn,
                           Doubles& dgate_up) {
  for (size_t i = 0; i < dy.size(); ++i) {
    const size_t gate = i / ffn * 2 * ffn + i % ffn;
    const double g = gate_up[gate], up = gate_up[gate + ffn];
    const double s = 1 / (1 + std::exp(-g));
    dgate_up[gate] = dy[i] * up * s * (1 + g * (1 - s));
    dgate_up[gate + ffn] = dy[i] * g * s;
  }
}

inline const double kRootTwoOverPi = std::sqrt(2 / std::acos(-1.0));

inline void GeluForward(const Doubles& x, Doubles& y) {
  for (size_t i = 0; i < x.size(); ++i) {
    const double u = kRootTwoOverPi * (x[i] + 0.044715 * std::pow(x[i], 3));
    y[i] = 0.5 * x[i] * (1 + std::tanh(u));
  }
}

inline void GeluBackward(const Doubles& dy, const Doubles& x, Doubles& dx) {
  for (size_t i = 0; i < x.size(); ++i) {
    const double t = std::tanh(kRootTwoOverPi * (x[i] + 0.044715 * std::pow(x[i], 3)));
    const double slope = kRootTwoOverPi * (1 + 3 * 0.044715 * x[i] * x[i]);
    dx[i] = dy[i] * (0.5 * (1 + t) + 0.5 * x[i] * (1 - t * t) * slope);
  }
}

inline void EmbeddingForward(const Doubles& ids, const Doubles& table, bool accumulate,
                             Doubles& out) {
  const size_t width = out.size() / ids.size();
  for (size_t i = 0; i < out.size(); ++i) {
    const double value = table[static_cast<size_t>(ids[i / width]) * width + i % width];
    out[i] = accumulate ? out[i] + value : value;
  }
}

inline void EmbeddingBackward(const Doubles& ids, const Doubles& dout, Doubles& dtable) {
  const size_t width = dout.size() / ids.size();
  for (size_t i = 0; i < dout.size(); ++i)
    dtable[static_cast<size_t>(ids[i / width]) * width + i % width] += dout[i];
}

struct MatrixProduct {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  double alpha, beta;
};

inline void Gemm(const MatrixProduct& p, const Doubles& a, const Doubles& b, Doubles& c) {
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < p.k; ++l) {
        sum += a[p.transpose_a ? l * p.m + i : i * p.k + l] *
               b[p.transpose_b ? j * p.k + l : l * p.n + j];
      }
      double& at = c[i * p.n + j];
      at = p.alpha * sum + (p.beta == 0 ? 0 : p.beta * at);
    }
  }
}

inline void AddBias(const Doubles& bias, Doubles& y) {
  for (size_t i = 0; i < y.size(); ++i) y[i] += bias[i % bias.size()];
}

inline void BiasBackward(const Doubles& dy, Doubles& dbias) {
  for (size_t i = 0; i < dy.size(); ++i) dbias[i % dbias.size()] += dy[i];
}

// dhidden (overwritten) and dweight (+=) are skipped where null.
inline void LinearCrossEntropy(const Doubles& hidden, const Doubles& weight, const Doubles& targets,
                               Doubles& losses, Doubles* dhidden, Doubles* dweight) {
  const size_t rows = targets.size(), width = hidden.size() / rows;
  const size_t vocabulary = weight.size() / width;
  Doubles logits(vocabulary);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t v = 0; v < vocabulary; ++v) {
      logits[v] = 0;
      for (size_t c = 0; c < width; ++c) logits[v] += hidden[r * width + c] * weight[v * width + c];
    }
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (double logit : logits) sum += std::exp(logit - largest);
    const size_t target = static_cast<size_t>(targets[r]);
    losses[r] = largest + std::log(sum) - logits[target];
    if (dhidden == nullptr) continue;
    for (size_t c = 0; c < width; ++c) (*dhidden)[r * width + c] = 0;
    for (size_t v = 0; v < vocabulary; ++v) {
      const double slope = std::exp(logits[v] - largest) / sum - (v == target ? 1 : 0);
      for (size_t c = 0; c < width; ++c) {
        (*dhidden)[r * width + c] += slope * weight[v * width + c];
        (*dweight)[v * width + c] += slope * hidden[r * width + c];
      }
    }
  }
}

// statistics: l1, squared l2, count of NaN and infinities; all +=.
inline void GradientStatistics(const Doubles& gradient, Doubles& statistics) {
  for (double g : gradient) {
    if (std::isfinite(g)) {
      statistics[0] += std::abs(g);
      statistics[1] += g * g;
    } else {
      statistics[2] += 1;
    }
  }
}

struct AdamW {
  double rate, beta1, beta2, eps, weight_decay, gradient_scale;
  int64_t step;
};

inline void AdamWUpdate(const AdamW& p, const Doubles& gradient, Doubles& parameter, Doubles& first,
                        Doubles& second) {
  for (size_t i = 0; i < gradient.size(); ++i) {
    const double g = p.gradient_scale * gradient[i];
    parameter[i] *= 1 - p.rate * p.weight_decay;
    first[i] = p.beta1 * first[i] + (1 - p.beta1) * g;
    second[i] = p.beta2 * second[i] + (1 - p.beta2) * g * g;
    const double m = first[i] / (1 - std::pow(p.beta1, p.step));
    const double v = second[i] / (1 - std::pow(p.beta2, p.step));
    parameter[i] -= p.rate * m / (std::sqrt(v) + p.eps);
  }
}

// Of the second moments after the update.
inline double AdamSum(const AdamW& p, const Doubles& gradient, const Doubles& second) {
  double sum = 0;
  for (size_t i = 0; i < gradient.size(); ++i) {
    const double g = p.gradient_scale * gradient[i];
    sum += g * g / (std::sqrt(second[i] / (1 - std::pow(p.beta2, p.step))) + p.eps);
  }
  return sum;
}

struct Sgd {
  double rate, momentum, weight_decay, gradient_scale;
};

inline void SgdUpdate(const Sgd& p, const Doubles& gradient, Doubles& parameter,
                      Doubles& momentum) {
  for (size_t i = 0; i < gradient.size(); ++i) {
    momentum[i] =
        p.momentum * momentum[i] + p.gradient_scale * gradient[i] + p.weight_decay * parameter[i];
    parameter[i] -= p.rate * momentum[i];
  }
}

}  // namespace longspan::reference

#endif  // LONGSPAN_TESTS_KERNELS_REFERENCE_H_
