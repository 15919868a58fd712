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

// output[i] = ((inputs[0][i] + inputs[1][i]) + ...), kF32 or kF64, summed in that type. `output`
// may be one of the inputs. Blocks the calling thread until done.
void SumInRankOrder(const std::vector<const void*>& inputs, DType dtype, int64_t elements,
                    void* output, ThreadPool& threads);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_RANK_ORDER_SUM_H_
