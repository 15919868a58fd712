#include "runtime/model/activation_store.h"

#include <utility>

#include "kernels/device/check.h"

namespace longspan {
namespace {

int64_t SlotBytes(const ActivationStore::Slot& slot, int64_t max_rows) {
  // What a GPU reads at once lies at a multiple of it.
  constexpr int64_t kAlignment = 16;
  const int64_t bytes = max_rows * slot.columns * SizeOf(slot.dtype);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

int64_t ActivationStore::Bytes(const std::vector<Slot>& slots, int layers, int64_t max_rows) {
  int64_t layer_bytes = 0;
  for (const Slot& slot : slots) layer_bytes += SlotBytes(slot, max_rows);
  return layers * layer_bytes;
}

absl::StatusOr<ActivationStore> ActivationStore::Create(MemoryTable& memory,
                                                        std::vector<Slot> slots, int layers,
                                                        int64_t max_rows) {
  ActivationStore store;
  for (const Slot& slot : slots) {
    store.offsets_.push_back(store.layer_bytes_);
    store.layer_bytes_ += SlotBytes(slot, max_rows);
  }
  store.slots_ = std::move(slots);
  store.layers_ = layers;
  store.max_rows_ = max_rows;
  absl::StatusOr<Buffer> buffer =
      Buffer::Allocate(memory, layers * store.layer_bytes_, "activations", Placement::kDevice);
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
  return buffer_.Tensor(slots_[slot].dtype, {rows_, slots_[slot].columns},
                        layer * layer_bytes_ + offsets_[slot]);
}

TensorView ActivationStore::Save(int layer, int slot) const { return At(layer, slot); }

TensorView ActivationStore::Load(int layer, int slot, Stream&) const { return At(layer, slot); }

}  // namespace longspan
