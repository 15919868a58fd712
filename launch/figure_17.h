// ByteScale's Figure 17 (arXiv 2502.21231): speed-up over a static mesh by context, model and
// cluster, as cases to simulate.
#ifndef LONGSPAN_LAUNCH_FIGURE_17_H_
#define LONGSPAN_LAUNCH_FIGURE_17_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "launch/simulation_sweep.h"

namespace longspan {

inline constexpr std::array<int64_t, 4> kFigure17Contexts = {256 << 10, 512 << 10, 1 << 20,
                                                             2 << 20};

// A curve of the figure.
struct Figure17Curve {
  std::string mix, model;
  int gpus = 0;
  int tensor_parallel = 1;
  int stages = 1;                         // ranks = gpus / (tensor_parallel * stages)
  std::array<double, 4> published = {};   // by context; 0: not known to us
  std::vector<SimulationCase> baseline;   // policy "static", by context
  std::vector<SimulationCase> bytescale;  // ByteScale's policy: with stages "pp-balance"
  std::vector<SimulationCase> skyline;
};

// Batches of 32M tokens, 8K tokens a rank. Costs are scaled from ByteScale's case study (7B, tensor
// degree 2) by the models' published shapes: see figure_17.cc.
std::vector<Figure17Curve> Figure17Curves();

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_FIGURE_17_H_
