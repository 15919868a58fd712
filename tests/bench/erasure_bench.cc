// erasure_bench: how fast parity is computed from files, and a lost file from parity, on one core,
// beside a plain copy. Symbols of the size that files are cut into; each is added up as it comes,
// as checkpoint/parity_partners.cc and decoded_reads.cc do it. Google Benchmark's options.
//
//   encode/4+1   bytes/s of the 4 data symbols; all parity of them is made
//   decode/4+1   bytes/s of what is recovered: as many data symbols as may be lost, from the others
//   memcpy       bytes/s copied
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "checkpoint/erasure_code.h"
#include "checkpoint/rank_file.h"

namespace longspan {
namespace {

struct Code {
  int data, parity;
  std::string name() const { return std::to_string(data) + "+" + std::to_string(parity); }
};
constexpr Code kCodes[] = {{4, 1}, {8, 2}};

using Symbols = std::vector<std::string>;

Symbols SomeData(int count) {
  Symbols symbols(static_cast<size_t>(count), std::string(kChunkBytes, '\0'));
  uint32_t state = 1;
  for (std::string& symbol : symbols) {
    for (char& byte : symbol) {
      state = state * 1664525u + 1013904223u;
      byte = static_cast<char>(state >> 24);
    }
  }
  return symbols;
}

// All parity of `data`, into `parity`.
void Encode(const Symbols& data, Symbols& parity) {
  const auto count = static_cast<int>(data.size());
  for (std::string& sum : parity) std::memset(sum.data(), 0, sum.size());
  for (int d = 0; d < count; ++d) {
    for (size_t p = 0; p < parity.size(); ++p) {
      Multiplier(ParityFactor(count, static_cast<int>(p), d))
          .AddProduct(data[d].data(), parity[p].data(), kChunkBytes);
    }
  }
}

// The first symbols of `stripe`, as many as it has parity, from the others. False if they cannot
// be.
bool Decode(const Code& code, const Symbols& stripe, Symbols& recovered) {
  std::vector<int> there;
  for (int symbol = code.parity; symbol < code.data + code.parity; ++symbol) {
    there.push_back(symbol);
  }
  for (int wanted = 0; wanted < code.parity; ++wanted) {
    const auto factors = RecoveryFactors(code.data, there, wanted);
    if (!factors.ok()) return false;
    std::memset(recovered[wanted].data(), 0, kChunkBytes);
    for (size_t i = 0; i < there.size(); ++i) {
      Multiplier((*factors)[i])
          .AddProduct(stripe[there[i]].data(), recovered[wanted].data(), kChunkBytes);
    }
  }
  return true;
}

void Rate(benchmark::State& state, int symbols) {
  state.SetBytesProcessed(state.iterations() * symbols * kChunkBytes);
}

void MeasureEncode(benchmark::State& state, const Code& code) {
  const Symbols data = SomeData(code.data);
  Symbols parity = SomeData(code.parity);
  for (auto _ : state) {
    Encode(data, parity);
    benchmark::ClobberMemory();
  }
  Rate(state, code.data);
}

void MeasureDecode(benchmark::State& state, const Code& code) {
  const Symbols data = SomeData(code.data);
  Symbols stripe = data, parity = SomeData(code.parity), recovered = SomeData(code.parity);
  Encode(data, parity);
  stripe.insert(stripe.end(), parity.begin(), parity.end());
  for (auto _ : state) {
    if (!Decode(code, stripe, recovered)) state.SkipWithError("not recovered");
    benchmark::ClobberMemory();
  }
  for (int lost = 0; lost < code.parity; ++lost) {
    if (recovered[lost] == data[lost]) continue;
    // Its speed would mean nothing.
    std::fprintf(stderr, "erasure_bench: decode/%s recovers other bytes\n", code.name().c_str());
    std::exit(1);
  }
  Rate(state, code.parity);
}

void MeasureCopy(benchmark::State& state) {
  const Symbols from = SomeData(8);
  Symbols to = from;
  for (auto _ : state) {
    for (size_t i = 0; i < from.size(); ++i) {
      std::memcpy(to[i].data(), from[i].data(), kChunkBytes);
    }
    benchmark::ClobberMemory();
  }
  Rate(state, 8);
}

int Main(int argc, char** argv) {
  for (const Code& code : kCodes) {
    benchmark::RegisterBenchmark(("encode/" + code.name()).c_str(),
                                 [code](auto& state) { MeasureEncode(state, code); });
    benchmark::RegisterBenchmark(("decode/" + code.name()).c_str(),
                                 [code](auto& state) { MeasureDecode(state, code); });
  }
  benchmark::RegisterBenchmark("memcpy", MeasureCopy);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) { return longspan::Main(argc, argv); }
