// ActivationStore: what the backward pass needs of the forward pass, by layer and slot.
//
// All activations of a model pass through it, so that later they can be parked in host memory,
// recomputed or cut in time without the layers knowing. Here they simply stay: one buffer, made
// once for the largest micro-batch, nothing is allocated inside a step. Thread-safety: one thread
// queues work. Ownership: the store owns the memory; views are valid until the next Begin.
#ifndef LONGSPAN_RUNTIME_MODEL_ACTIVATION_STORE_H_
#define LONGSPAN_RUNTIME_MODEL_ACTIVATION_STORE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/memory.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

class ActivationStore {
 public:
  struct Slot {
    std::string name;
    int64_t columns = 0;  // values a token
    DType dtype = DType::kF32;
  };
  // `layers` layers of the same slots. `max_rows` tokens at most in a micro-batch.
  static absl::StatusOr<ActivationStore> Create(MemoryTable& memory, std::vector<Slot> slots,
                                                int layers, int64_t max_rows);

  // What Create allocates for them.
  static int64_t Bytes(const std::vector<Slot>& slots, int layers, int64_t max_rows);

  // A new micro-batch of `rows` tokens; earlier views become invalid once work queued before has
  // run.
  void Begin(int64_t rows);
  // Where the forward pass writes a slot: (rows, columns), of the slot's dtype.
  TensorView Save(int layer, int slot) const;
  // The same in the backward pass, ready to be read by work queued on `stream` from now on.
  TensorView Load(int layer, int slot, Stream& stream) const;

 private:
  ActivationStore() = default;
  TensorView At(int layer, int slot) const;
  Buffer buffer_;
  std::vector<Slot> slots_;
  std::vector<int64_t> offsets_;  // of each slot in a layer, in bytes
  int64_t layer_bytes_ = 0;
  int layers_ = 0;
  int64_t max_rows_ = 0, rows_ = 0;
};

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_MODEL_ACTIVATION_STORE_H_
