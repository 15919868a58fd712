#include "parallel/length_mix.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "parallel/integer_cost.h"

namespace longspan {
namespace {

constexpr int64_t kK = 1024;
constexpr int64_t kGiant = 2048 * kK;
constexpr int64_t kEqual = 8 * kK;

// SplitMix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u) {}
  // In [0, 1).
  double Uniform() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }

 private:
  uint64_t state_;
};

// Lengths in [low, high), or exactly `low` if both are equal.
struct Bin {
  int64_t low, high;
  double share;
};

int64_t LogUniform(int64_t low, int64_t high, double u) {
  const double length =
      static_cast<double>(low) * std::pow(static_cast<double>(high) / static_cast<double>(low), u);
  return std::clamp(static_cast<int64_t>(length), low, std::max(low, high - 1));
}

double MeanLength(const Bin& bin) {
  const double low = static_cast<double>(bin.low), high = static_cast<double>(bin.high);
  return bin.low == bin.high ? low : (high - low) / std::log(high / low);
}

// Bins by their share of samples.
using Bins = std::vector<Bin>;

Bins BySamples(Bins by_tokens) {
  for (Bin& bin : by_tokens) bin.share /= MeanLength(bin);
  return by_tokens;
}

int64_t Draw(const Bins& bins, Random& random) {
  double total = 0;
  for (const Bin& bin : bins) total += bin.share;
  double at = random.Uniform() * total;
  const double u = random.Uniform();
  for (const Bin& bin : bins) {
    if (at < bin.share || &bin == &bins.back()) return LogUniform(bin.low, bin.high, u);
    at -= bin.share;
  }
  return bins.back().low;
}

const Bins& Byted() {
  static const Bins bins = BySamples({{200, 2 * kK, .06},
                                      {2 * kK, 4 * kK, .095},
                                      {4 * kK, 8 * kK, .102},
                                      {8 * kK, 16 * kK, .076},
                                      {16 * kK, 32 * kK, .076},
                                      {32 * kK, 64 * kK, .076},
                                      {64 * kK, 128 * kK, .072},
                                      {128 * kK, 256 * kK, .073},
                                      {256 * kK, 512 * kK, .076},
                                      {512 * kK, 1024 * kK, .076},
                                      {1024 * kK, 2048 * kK, .097},
                                      {kGiant, kGiant, .121}});
  return bins;
}

const Bins& Github() {
  static const Bins bins = BySamples({{200, 2 * kK, .142},
                                      {2 * kK, 4 * kK, .114},
                                      {4 * kK, 8 * kK, .107},
                                      {8 * kK, 16 * kK, .14},
                                      {16 * kK, 32 * kK, .13},
                                      {32 * kK, 64 * kK, .11},
                                      {64 * kK, 128 * kK, .095},
                                      {128 * kK, 256 * kK, .064},
                                      {256 * kK, 512 * kK, .045},
                                      {512 * kK, 1024 * kK, .026},
                                      {1024 * kK, 2048 * kK, .016},
                                      {kGiant, kGiant, .011}});
  return bins;
}

const Bins& Wikipedia() {
  static const Bins bins = {
      {64, kK, .879}, {kK, 4 * kK, .114}, {4 * kK, 8 * kK, .006}, {8 * kK, 78 * kK, .001}};
  return bins;
}

const Bins& Chatqa2() {
  static const Bins bins = {{64, kK, .219},
                            {kK, 4 * kK, .096},
                            {4 * kK, 8 * kK, .089},
                            {8 * kK, 32 * kK, .595},
                            {32 * kK, 99 * kK, .001}};
  return bins;
}

// Quantiles of the measured files; between them the length is interpolated on a logarithmic scale.
constexpr struct {
  double share;
  int64_t length;
} kCodeQuantiles[] = {{0, 2},          {0.05, 86},       {0.1, 146},      {0.2, 314},
                      {0.3, 575},      {0.4, 923},       {0.5, 1258},     {0.6, 1798},
                      {0.7, 2650},     {0.75, 3292},     {0.8, 4160},     {0.85, 5455},
                      {0.9, 7599},     {0.925, 9195},    {0.95, 12328},   {0.96, 14418},
                      {0.97, 17054},   {0.98, 21891},    {0.985, 26495},  {0.99, 31996},
                      {0.9925, 37752}, {0.995, 47865},   {0.9965, 55222}, {0.998, 69381},
                      {0.999, 95091},  {0.9995, 173931}, {1, 361022}};

int64_t DrawCode(Random& random) {
  const double u = random.Uniform();
  const auto* above = std::upper_bound(std::begin(kCodeQuantiles), std::end(kCodeQuantiles) - 1, u,
                                       [](double x, const auto& q) { return x < q.share; });
  const auto& high = *above;
  const auto& low = *(above - 1);
  return LogUniform(low.length, high.length + 1, (u - low.share) / (high.share - low.share));
}

// Draws the i-th length of a batch.
using Source = std::function<int64_t(int64_t, Random&)>;

struct Mix {
  const char* name;
  Source draw;
};

const std::vector<Mix>& Mixes() {
  static const std::vector<Mix> mixes = {
      {"byted", [](int64_t, Random& random) { return Draw(Byted(), random); }},
      {"github", [](int64_t, Random& random) { return Draw(Github(), random); }},
      {"wikipedia", [](int64_t, Random& random) { return Draw(Wikipedia(), random); }},
      {"chatqa2", [](int64_t, Random& random) { return Draw(Chatqa2(), random); }},
      {"code", [](int64_t, Random& random) { return DrawCode(random); }},
      {"equal", [](int64_t, Random&) { return kEqual; }},
      {"giant", [](int64_t i, Random&) { return i == 0 ? kGiant : kEqual; }},
  };
  return mixes;
}

}  // namespace

std::vector<std::string> LengthMixes() {
  std::vector<std::string> names;
  for (const Mix& mix : Mixes()) names.emplace_back(mix.name);
  return names;
}

absl::StatusOr<std::vector<int64_t>> DrawLengths(const LengthMixRequest& request) {
  if (request.tokens < 1 || request.tokens > kMaxBatchTokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "length mix: ", request.tokens, " tokens; there must be from 1 to ", kMaxBatchTokens));
  }
  if (request.context < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("length mix: context is ", request.context, "; it must be positive, or 0"));
  }
  const auto mix = std::find_if(Mixes().begin(), Mixes().end(),
                                [&](const Mix& m) { return request.mix == m.name; });
  if (mix == Mixes().end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("length mix: unknown mix \"", request.mix,
                     "\"; there is: ", absl::StrJoin(LengthMixes(), ", ")));
  }
  Random random(request.seed);
  std::vector<int64_t> lengths;
  int64_t left = request.tokens;
  for (int64_t i = 0; left > 0; ++i) {
    int64_t length = std::min(mix->draw(i, random), left);
    left -= length;
    if (request.context > 0) {
      for (; length > request.context; length -= request.context) {
        lengths.push_back(request.context);
      }
    }
    lengths.push_back(length);
  }
  return lengths;
}

}  // namespace longspan
