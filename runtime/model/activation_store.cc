#include "runtime/model/activation_store.h"

#include <utility>

#include "kernels/device/check.h"

namespace longspan {

absl::StatusOr<ActivationStore> ActivationStore::Create(MemoryTable& memory,
                                                        std::vector<Slot> slots, int layers,
                                                        int64_t max_rows) {
  ActivationStore store;
  for (const Slot& slot : slots) {
    store.offsets_.push_back(store.columns_by_layer_);
    store.columns_.push_back(slot.columns);
    store.columns_by_layer_ += slot.columns;
  }
  store.layers_ = layers;
  store.max_rows_ = max_rows;
  absl::StatusOr<Buffer> buffer =
      Buffer::Allocate(memory, max_rows * layers * store.columns_by_layer_ * SizeOf(DType::kF32),
                       "activations", Placement::kDevice);
  if (!buffer.ok()) return buffer.status();
  store.buffer_ = *std::move(buffer);
  return store;
}

void ActivationStore::Begin(int64_t rows) {
  LONGSPAN_CHECK(rows <= max_rows_, "micro-batch larger than the activation store");
  rows_ = rows;
}

TensorView ActivationStore::At(int layer, int slot) const {
  LONGSPAN_CHECK(layer >= 0 && layer < layers_, "no such layer");
  const int64_t values_before = (layer * columns_by_layer_ + offsets_[slot]) * max_rows_;
  return buffer_.Tensor(DType::kF32, {rows_, columns_[slot]}, values_before * SizeOf(DType::kF32));
}

TensorView ActivationStore::Save(int layer, int slot) const { return At(layer, slot); }

TensorView ActivationStore::Load(int layer, int slot, Stream&) const { return At(layer, slot); }

}  // namespace longspan
