// PortableShape: a list of factors as a formula that any trainer has: a linear warm-up, then a
// power of what is left.
#ifndef LONGSPAN_OPTIM_PORTABLE_SHAPE_H_
#define LONGSPAN_OPTIM_PORTABLE_SHAPE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace longspan {

struct PortableShape {
  int64_t warmup_steps = 0;
  double power = 1;  // kind "polynomial" with that power
  double r2 = 1;     // share of the factors' variance that it explains
  std::string text;  // "7% warm-up, then (1-t)^1.5, R2 0.997"
};

// The best fit in least squares. factors: not empty, of largest value 1.
PortableShape PortableShapeOf(const std::vector<double>& factors);

}  // namespace longspan

#endif  // LONGSPAN_OPTIM_PORTABLE_SHAPE_H_
