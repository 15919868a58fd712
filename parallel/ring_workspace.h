// RingWorkspace: memory for keys, values and gradients that travel between the members of a ring.
#ifndef LONGSPAN_PARALLEL_RING_WORKSPACE_H_
#define LONGSPAN_PARALLEL_RING_WORKSPACE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/memory.h"
#include "kernels/device/stream.h"
#include "kernels/device/tensor_view.h"

namespace longspan {

// Memory that calls on one stream share; it grows to the largest of them. Without one each queued
// call holds memory of its own, as many as the host is ahead of the stream.
class RingWorkspace {
 public:
  RingWorkspace();
  ~RingWorkspace();
  RingWorkspace(RingWorkspace&&) noexcept;
  RingWorkspace& operator=(RingWorkspace&&) noexcept;

  // The memory behind it; only ring_workspace.cc knows what that is.
  struct Memory;
  std::shared_ptr<Memory>& memory() { return memory_; }

 private:
  std::shared_ptr<Memory> memory_;
};

// A matrix in the workspace.
struct WorkspaceShape {
  int64_t rows = 0, columns = 0;
  DType dtype = DType::kF32;
};

// One call's tensors, in memory owned by the last work that the call queues on its stream.
class WorkspaceTensors {
 public:
  // From `shared`, or memory of its own where that is null; tag "ring".
  static absl::StatusOr<WorkspaceTensors> Allocate(MemoryTable& table,
                                                   const std::vector<WorkspaceShape>& shapes,
                                                   RingWorkspace* shared);
  const TensorView& operator[](size_t index) const { return tensors_[index]; }
  // The stream goes on when the exchange is done; the memory stays until then, whatever happens.
  void Await(const Event& exchange, Stream& stream);
  // Keeps the memory until the stream gets here: the call's last.
  void HoldUntilHere(Stream& stream) const;

 private:
  std::shared_ptr<RingWorkspace::Memory> memory_;
  std::vector<TensorView> tensors_;
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_RING_WORKSPACE_H_
