#include "parallel/transport/connect_peers.h"

#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "kernels/device/memory.h"

namespace longspan {

absl::Status ConnectPeers(Transport& transport, Device& device) {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  const absl::StatusOr<std::vector<std::string>> hosts = transport.AllGatherBytes(name);
  if (!hosts.ok()) return hosts.status();
  const int rank = transport.rank(), size = transport.size();
  // Sets that both sides see alike.
  std::vector<int> peers;
  for (int peer = 0; peer < size; ++peer) {
    const int ahead = (peer - rank + size) % size;
    const bool near = ahead <= 2 || ahead >= size - 2;
    if (peer != rank && (near || (*hosts)[peer] == (*hosts)[rank])) peers.push_back(peer);
  }
  if (peers.empty()) return absl::OkStatus();
  const auto count = static_cast<int64_t>(peers.size());
  const absl::StatusOr<Buffer> buffer = Buffer::AllocateZeroed(
      device.memory(), (count + 1) * kConnectBytes, "transport", Placement::kDevice);
  if (!buffer.ok()) return buffer.status();
  const auto place = [&](int64_t index) {
    return buffer->Tensor(DType::kU8, {kConnectBytes}, index * kConnectBytes);
  };
  std::vector<Message> sends, receives;
  for (int64_t i = 0; i < count; ++i) {
    sends.push_back({peers[i], place(count)});
    receives.push_back({peers[i], place(i)});
  }
  Stream stream = device.CreateStream("connect");
  return transport.Exchange(std::move(sends), std::move(receives), stream).Wait();
}

}  // namespace longspan
