#include "parallel/key_value_rows.h"

#include "kernels/elementwise.h"

namespace longspan {

TensorView KeysOf(const TensorView& block, int64_t rows, const TensorView& k) {
  return block.Slice(0, 0, rows)
      .Slice(1, 0, k.dim(1) * k.dim(2))
      .Reshape({rows, k.dim(1), k.dim(2)});
}

TensorView ValuesOf(const TensorView& block, int64_t rows, const TensorView& k) {
  const int64_t width = k.dim(1) * k.dim(2);
  return block.Slice(0, 0, rows).Slice(1, width, 2 * width).Reshape({rows, k.dim(1), k.dim(2)});
}

void PackKeysAndValues(const TensorView& k, const TensorView& v, const TensorView& block,
                       Stream& stream) {
  const int64_t rows = k.dim(0);
  if (rows == 0) return;
  Convert(k, KeysOf(block, rows, k), stream);
  Convert(v, ValuesOf(block, rows, k), stream);
}

}  // namespace longspan
