// SumInRankOrder: the element-wise sum that every transport's reductions are made of. The order of
// additions is the order of the inputs, so the result has the same bits on any transport and any
// number of threads.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_RANK_ORDER_SUM_H_
#define LONGSPAN_PARALLEL_TRANSPORT_RANK_ORDER_SUM_H_

#include <cstdint>
#include <vector>

#include "kernels/device/tensor_view.h"
#include "kernels/device/thread_pool.h"

namespace longspan {

// output[i] = ((inputs[0][i] + inputs[1][i]) + ...). Inputs of kF32 or kF64 are summed in that
// type, which `output` has too, and it may be one of them; inputs of kBF16 in f32, which `output`
// then is, apart from them. Blocks the calling thread until done.
void SumInRankOrder(const std::vector<const void*>& inputs, DType dtype, int64_t elements,
                    void* output, ThreadPool& threads);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_RANK_ORDER_SUM_H_
