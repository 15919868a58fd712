#include "kernels/optimizer_pass.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <initializer_list>
#include <vector>

#include "kernels/cpu/row_blocks.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/device/content_sum.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizer_pass.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target.h first.
#include "hwy/highway.h"
#include "kernels/cpu/lanes-inl.h"

// Included once per instruction set: what they share is defined once.
#ifndef LONGSPAN_KERNELS_CPU_OPTIMIZER_PASS_SHARED_
#define LONGSPAN_KERNELS_CPU_OPTIMIZER_PASS_SHARED_
namespace longspan {
namespace {
// AdamWParameters with everything that is the same for all elements worked out in f64, then rounded
// once.
struct AdamWFactors {
  explicit AdamWFactors(const AdamWParameters& p)
      : gradient_scale(static_cast<float>(p.gradient_scale)),
        keep(static_cast<float>(1.0 - p.rate * p.weight_decay)),
        beta1(static_cast<float>(p.beta1)),
        one_minus_beta1(static_cast<float>(1.0 - p.beta1)),
        beta2(static_cast<float>(p.beta2)),
        one_minus_beta2(static_cast<float>(1.0 - p.beta2)),
        step_size(static_cast<float>(p.rate / (1.0 - std::pow(p.beta1, p.step)))),
        root_scale(static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(p.beta2, p.step)))),
        eps(static_cast<float>(p.eps)) {}
  float gradient_scale;
  float keep;  // what weight decay leaves of a parameter
  float beta1, one_minus_beta1;
  float beta2, one_minus_beta2;
  float step_size;   // rate / (1 - beta1^step)
  float root_scale;  // 1 / sqrt(1 - beta2^step)
  float eps;
};
}  // namespace
}  // namespace longspan
#endif

HWY_BEFORE_NAMESPACE();
namespace longspan {
namespace HWY_NAMESPACE {
namespace {

void AdamWRow(const AdamWFactors& f, const float* gradient, int64_t count, float* parameter,
              float* first, float* second) {
  ForLanes(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(hn::LoadU(d, gradient + i), hn::Set(d, f.gradient_scale));
    const auto m = hn::MulAdd(hn::Set(d, f.beta1), hn::LoadU(d, first + i),
                              hn::Mul(hn::Set(d, f.one_minus_beta1), g));
    const auto v = hn::MulAdd(hn::Set(d, f.beta2), hn::LoadU(d, second + i),
                              hn::Mul(hn::Set(d, f.one_minus_beta2), hn::Mul(g, g)));
    const auto denominator = hn::MulAdd(hn::Sqrt(v), hn::Set(d, f.root_scale), hn::Set(d, f.eps));
    const auto kept = hn::Mul(hn::LoadU(d, parameter + i), hn::Set(d, f.keep));
    hn::StoreU(m, d, first + i);
    hn::StoreU(v, d, second + i);
    hn::StoreU(hn::NegMulAdd(hn::Set(d, f.step_size), hn::Div(m, denominator), kept), d,
               parameter + i);
  });
}

// sum g^2 / (sqrt(v) * root_scale + eps): of lanes in f32, over rows short enough for that.
double AdamSumRow(const AdamWFactors& f, const float* gradient, int64_t count,
                  const float* second) {
  constexpr int64_t kShort = 1024;
  double sum = 0;
  for (int64_t begin = 0; begin < count; begin += kShort) {
    sum += SumLanes(std::min(kShort, count - begin), [&](auto d, int64_t i) HWY_ATTR {
      const auto g = hn::Mul(hn::LoadU(d, gradient + begin + i), hn::Set(d, f.gradient_scale));
      const auto v = hn::LoadU(d, second + begin + i);
      return hn::Div(hn::Mul(g, g),
                     hn::MulAdd(hn::Sqrt(v), hn::Set(d, f.root_scale), hn::Set(d, f.eps)));
    });
  }
  return sum;
}

void SgdRow(const SgdParameters& p, const float* gradient, int64_t count, float* parameter,
            float* momentum) {
  const float scale = static_cast<float>(p.gradient_scale);
  const float decay = static_cast<float>(p.weight_decay), keep = static_cast<float>(p.momentum);
  const float rate = static_cast<float>(p.rate);
  ForLanes(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto value = hn::LoadU(d, parameter + i);
    const auto direction = hn::MulAdd(hn::LoadU(d, gradient + i), hn::Set(d, scale),
                                      hn::Mul(value, hn::Set(d, decay)));
    const auto moved = hn::MulAdd(hn::LoadU(d, momentum + i), hn::Set(d, keep), direction);
    hn::StoreU(moved, d, momentum + i);
    hn::StoreU(hn::NegMulAdd(hn::Set(d, rate), moved, value), d, parameter + i);
  });
}

// The running sums for the lanes of D (f64).
template <class D>
struct StatisticsLanes {
  hn::Vec<D> l1;
  hn::Vec<D> squared_l2;
  int64_t finite;
};

template <class D>
HWY_INLINE void AddStatistics(D d, const float* gradient, StatisticsLanes<D>& sums) {
  const hn::Rebind<float, D> df;
  const auto g = hn::LoadU(df, gradient);
  const auto finite = hn::IsFinite(g);
  sums.finite += static_cast<int64_t>(hn::CountTrue(df, finite));
  const auto wide = hn::PromoteTo(d, hn::IfThenElseZero(finite, g));
  sums.l1 = hn::Add(sums.l1, hn::Abs(wide));
  sums.squared_l2 = hn::MulAdd(wide, wide, sums.squared_l2);
}

GradientStatistics StatisticsRow(const float* gradient, int64_t count) {
  using Tag = hn::ScalableTag<double>;
  using SingleTag = hn::CappedTag<double, 1>;
  const Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  StatisticsLanes<Tag> even{hn::Zero(d), hn::Zero(d), 0}, odd = even;
  int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    AddStatistics(d, gradient + i, even);
    AddStatistics(d, gradient + i + lanes, odd);
  }
  StatisticsLanes<SingleTag> rest{hn::Zero(SingleTag()), hn::Zero(SingleTag()), 0};
  for (; i < count; ++i) AddStatistics(SingleTag(), gradient + i, rest);
  GradientStatistics statistics;
  statistics.l1 = hn::GetLane(hn::SumOfLanes(d, hn::Add(even.l1, odd.l1))) + hn::GetLane(rest.l1);
  statistics.squared_l2 = hn::GetLane(hn::SumOfLanes(d, hn::Add(even.squared_l2, odd.squared_l2))) +
                          hn::GetLane(rest.squared_l2);
  statistics.non_finite = static_cast<double>(count - even.finite - odd.finite - rest.finite);
  return statistics;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace longspan
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longspan {

HWY_EXPORT(AdamWRow);
HWY_EXPORT(AdamSumRow);
HWY_EXPORT(SgdRow);
HWY_EXPORT(StatisticsRow);

void AccumulateGradientStatistics(TensorView gradient, TensorView statistics, Stream& stream) {
  const int64_t count = gradient.elements();
  CheckVector(gradient, count);
  CheckVector(statistics, 3, DType::kF64);
  LONGSPAN_RUN_ON_CUDA(stream, AccumulateGradientStatistics(gradient, statistics, stream));
  stream.Launch("gradient_statistics", [=, threads = &stream.device().threads()] {
    const int64_t blocks = (count + kTaskElements - 1) / kTaskElements;
    std::vector<GradientStatistics> partials(blocks);
    threads->ParallelFor(blocks, [&](int64_t block) {
      const int64_t begin = block * kTaskElements;
      partials[block] = HWY_DYNAMIC_DISPATCH(StatisticsRow)(gradient.data<float>() + begin,
                                                            std::min(kTaskElements, count - begin));
    });
    double* const sums = statistics.data<double>();
    for (const GradientStatistics& partial : partials) {
      sums[0] += partial.l1;
      sums[1] += partial.squared_l2;
      sums[2] += partial.non_finite;
    }
  });
}

namespace {

// Adds to written.sums[k] that of block [begin, end) of the k-th vector, which is in the cache
// still. Sums of integers: the order of blocks makes no difference.
void AddWritten(const WrittenSums& written, std::initializer_list<TensorView> vectors,
                int64_t begin, int64_t end) {
  if (written.sums.rank() == 0) return;
  auto* sum = written.sums.data<uint64_t>();
  for (const TensorView& vector : vectors) {
    std::atomic_ref<uint64_t>(*sum++).fetch_add(
        ContentSum(vector.data<float>() + begin, end - begin, written.position + begin),
        std::memory_order_relaxed);
  }
}

}  // namespace

void AdamWUpdate(const AdamWParameters& parameters, TensorView gradient, TensorView parameter,
                 TensorView first_moment, TensorView second_moment, Stream& stream,
                 TensorView adam_sum, const WrittenSums& written) {
  const int64_t count = gradient.elements();
  CheckVector(gradient, count);
  CheckVector(parameter, count);
  CheckVector(first_moment, count);
  CheckVector(second_moment, count);
  const bool wants_sum = adam_sum.rank() > 0;
  if (wants_sum) CheckVector(adam_sum, 1, DType::kF64);
  if (written.sums.rank() > 0) CheckVector(written.sums, 3, DType::kU64);
  LONGSPAN_CHECK(parameters.step >= 1, "AdamW's first update is step 1");
  LONGSPAN_RUN_ON_CUDA(stream, AdamWUpdate(parameters, gradient, parameter, first_moment,
                                           second_moment, adam_sum, written, stream));
  const AdamWFactors factors(parameters);
  stream.Launch("adamw", [=, threads = &stream.device().threads()] {
    std::vector<double> partials(wants_sum ? (count + kTaskElements - 1) / kTaskElements : 0);
    ForRowBlocks(*threads, count, 1, [&](int64_t begin, int64_t end) {
      const float* const g = gradient.data<float>() + begin;
      float* const second = second_moment.data<float>() + begin;
      HWY_DYNAMIC_DISPATCH(AdamWRow)
      (factors, g, end - begin, parameter.data<float>() + begin, first_moment.data<float>() + begin,
       second);
      AddWritten(written, {parameter, first_moment, second_moment}, begin, end);
      if (wants_sum) {
        partials[begin / kTaskElements] =
            HWY_DYNAMIC_DISPATCH(AdamSumRow)(factors, g, end - begin, second);
      }
    });
    for (const double partial : partials) *adam_sum.data<double>() += partial;
  });
}

void SgdUpdate(const SgdParameters& parameters, TensorView gradient, TensorView parameter,
               TensorView momentum, Stream& stream, const WrittenSums& written) {
  const int64_t count = gradient.elements();
  CheckVector(gradient, count);
  CheckVector(parameter, count);
  CheckVector(momentum, count);
  if (written.sums.rank() > 0) CheckVector(written.sums, 2, DType::kU64);
  LONGSPAN_RUN_ON_CUDA(stream,
                       SgdUpdate(parameters, gradient, parameter, momentum, written, stream));
  stream.Launch("sgd", [=, threads = &stream.device().threads()] {
    ForRowBlocks(*threads, count, 1, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(SgdRow)
      (parameters, gradient.data<float>() + begin, end - begin, parameter.data<float>() + begin,
       momentum.data<float>() + begin);
      AddWritten(written, {parameter, momentum}, begin, end);
    });
  });
}

}  // namespace longspan
#endif  // HWY_ONCE
