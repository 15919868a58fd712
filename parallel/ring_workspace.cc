#include "parallel/ring_workspace.h"

#include <utility>

namespace longspan {

struct RingWorkspace::Memory {
  ~Memory() {
    // Where all went well every exchange is done by now. If the stream failed meanwhile, messages
    // may still arrive in this memory: it stays until they have.
    auto kept = std::make_shared<Buffer>(std::move(buffer));
    for (const Event& exchange : exchanges) {
      if (!exchange.Done()) exchange.OnDone([kept](const absl::Status&) {});
    }
  }

  Buffer buffer;
  std::vector<Event> exchanges;
};

RingWorkspace::RingWorkspace() = default;
RingWorkspace::~RingWorkspace() = default;
RingWorkspace::RingWorkspace(RingWorkspace&&) noexcept = default;
RingWorkspace& RingWorkspace::operator=(RingWorkspace&&) noexcept = default;

absl::StatusOr<WorkspaceTensors> WorkspaceTensors::Allocate(
    MemoryTable& table, const std::vector<WorkspaceShape>& shapes, RingWorkspace* shared) {
  constexpr int64_t kAlignment = 64;
  auto bytes = [](const WorkspaceShape& shape) {
    const int64_t exact = shape.rows * shape.columns * SizeOf(shape.dtype);
    return (exact + kAlignment - 1) / kAlignment * kAlignment;
  };
  int64_t total = 0;
  for (const WorkspaceShape& shape : shapes) total += bytes(shape);
  WorkspaceTensors workspace;
  if (shared != nullptr) workspace.memory_ = shared->memory();
  // Work queued before has let go of the memory when this call's runs: both are on one stream, and
  // every call ends with its exchanges awaited.
  if (workspace.memory_ == nullptr || workspace.memory_->buffer.bytes() < total) {
    absl::StatusOr<Buffer> buffer = Buffer::Allocate(table, total, "ring", Placement::kDevice);
    if (!buffer.ok()) return buffer.status();
    workspace.memory_ = std::make_shared<RingWorkspace::Memory>();
    workspace.memory_->buffer = *std::move(buffer);
    if (shared != nullptr) shared->memory() = workspace.memory_;
  }
  std::erase_if(workspace.memory_->exchanges,
                [](const Event& exchange) { return exchange.Done(); });
  int64_t offset = 0;
  for (const WorkspaceShape& shape : shapes) {
    workspace.tensors_.push_back(
        workspace.memory_->buffer.Tensor(shape.dtype, {shape.rows, shape.columns}, offset));
    offset += bytes(shape);
  }
  return workspace;
}

void WorkspaceTensors::Await(const Event& exchange, Stream& stream) {
  stream.WaitFor(exchange);
  memory_->exchanges.push_back(exchange);
}

void WorkspaceTensors::HoldUntilHere(Stream& stream) const {
  stream.RunOnHost("ring workspace", [held = memory_] { return absl::OkStatus(); });
}

}  // namespace longspan
