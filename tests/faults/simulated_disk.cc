#include "simulated_disk.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "kernels/device/check.h"

namespace longspan {
namespace {

constexpr int kRoot = 0;
constexpr size_t kSector = 512;

// What may have become of one unsynced operation. Entries and reservations know the first two
// alone.
enum Fate { kLost = 0, kPresent = 1, kFirstHalf = 2, kSecondHalf = 3, kOddSectors = 4, kFates = 5 };

int64_t Fates(const DiskOperation& operation) {
  return operation.kind == DiskOperation::kWrite ? int64_t{kFates} : 2;
}

}  // namespace

class SimulatedDisk::OpenFile : public File {
 public:
  OpenFile(SimulatedDisk& disk, int node, std::string path)
      : disk_(disk), node_(node), path_(std::move(path)) {}

  absl::Status WriteAt(int64_t offset, const void* data, int64_t bytes) override {
    if (absl::Status status = disk_.CallHook("write " + path_); !status.ok()) return status;
    const std::lock_guard<std::mutex> lock(disk_.mutex_);
    DiskOperation operation;
    operation.kind = DiskOperation::kWrite;
    operation.node = node_;
    operation.offset = offset;
    operation.data.assign(static_cast<const char*>(data), static_cast<size_t>(bytes));
    operation.text = "write " + path_;
    disk_.Record(std::move(operation));
    return absl::OkStatus();
  }

  absl::Status ReadAt(int64_t offset, void* data, int64_t bytes) override {
    if (absl::Status status = disk_.CallHook("read " + path_); !status.ok()) return status;
    const std::lock_guard<std::mutex> lock(disk_.mutex_);
    const std::string& content = disk_.nodes_.at(node_).content;
    if (offset + bytes > static_cast<int64_t>(content.size())) {
      return absl::DataLossError("read " + path_ + ": the file ends too early");
    }
    std::memcpy(data, content.data() + offset, static_cast<size_t>(bytes));
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> Size() override {
    if (absl::Status status = disk_.CallHook("size " + path_); !status.ok()) return status;
    const std::lock_guard<std::mutex> lock(disk_.mutex_);
    return static_cast<int64_t>(disk_.nodes_.at(node_).content.size());
  }

  absl::Status Reserve(int64_t bytes) override {
    if (absl::Status status = disk_.CallHook("reserve " + path_); !status.ok()) return status;
    const std::lock_guard<std::mutex> lock(disk_.mutex_);
    DiskOperation operation;
    operation.kind = DiskOperation::kReserve;
    operation.node = node_;
    operation.offset = bytes;
    operation.text = "reserve " + path_;
    disk_.Record(std::move(operation));
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    if (absl::Status status = disk_.CallHook("sync " + path_); !status.ok()) return status;
    const std::lock_guard<std::mutex> lock(disk_.mutex_);
    DiskOperation operation;
    operation.kind = DiskOperation::kSync;
    operation.node = node_;
    operation.text = "sync " + path_;
    disk_.Record(std::move(operation));
    return absl::OkStatus();
  }

 private:
  SimulatedDisk& disk_;
  const int node_;
  const std::string path_;
};

SimulatedDisk::SimulatedDisk() {
  // Not recorded: they were there before.
  nodes_[kRoot].directory = true;
  nodes_[kRoot].entries["run"] = 1;
  nodes_[1].directory = true;
  next_node_ = 2;
}

int SimulatedDisk::Find(const std::string& path) const {
  int node = kRoot;
  for (size_t begin = 1; begin < path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const auto& entries = nodes_.at(node).entries;
    const auto found = entries.find(path.substr(begin, end - begin));
    if (found == entries.end()) return -1;
    node = found->second;
    begin = end + 1;
  }
  return node;
}

int SimulatedDisk::FindParent(const std::string& path, std::string& name) const {
  const size_t slash = path.rfind('/');
  name = path.substr(slash + 1);
  const int parent = Find(path.substr(0, slash));
  return parent >= 0 && nodes_.at(parent).directory ? parent : -1;
}

absl::Status SimulatedDisk::CallHook(const std::string& text) {
  Hook hook;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    hook = hook_;
  }
  return hook ? hook(text) : absl::OkStatus();
}

void SimulatedDisk::Apply(const DiskOperation& operation, int fate) {
  if (fate == kLost) return;
  switch (operation.kind) {
    case DiskOperation::kCreate:
    case DiskOperation::kMakeDirectory:
      nodes_[operation.node].entries[operation.name] = operation.child;
      break;
    case DiskOperation::kRename:
      nodes_[operation.node].entries.erase(operation.name);
      nodes_[operation.node].entries[operation.to] = operation.child;
      break;
    case DiskOperation::kRemove:
      nodes_[operation.node].entries.erase(operation.name);
      break;
    case DiskOperation::kReserve: {
      std::string& content = nodes_[operation.node].content;
      if (content.size() < static_cast<size_t>(operation.offset)) content.resize(operation.offset);
      break;
    }
    case DiskOperation::kWrite: {
      std::string& content = nodes_[operation.node].content;
      const size_t size = operation.data.size();
      const size_t half = size / 2;
      for (size_t begin = 0; begin < size;) {
        size_t end = std::min(size, begin + kSector);
        if (begin < half) end = std::min(end, half);
        const bool kept = fate == kPresent || (fate == kFirstHalf && begin < half) ||
                          (fate == kSecondHalf && begin >= half) ||
                          (fate == kOddSectors && begin / kSector % 2 == 1);
        if (kept) {
          const size_t at = operation.offset + begin;
          if (content.size() < at + (end - begin)) content.resize(at + (end - begin));
          content.replace(at, end - begin, operation.data, begin, end - begin);
        }
        begin = end;
      }
      break;
    }
    case DiskOperation::kSync:
    case DiskOperation::kSyncDirectory:
      break;
  }
}

void SimulatedDisk::Record(DiskOperation operation) {
  Apply(operation, kPresent);
  operations_.push_back(std::move(operation));
}

absl::StatusOr<std::unique_ptr<File>> SimulatedDisk::Create(const std::string& path) {
  if (absl::Status status = CallHook("create " + path); !status.ok()) return status;
  const std::lock_guard<std::mutex> lock(mutex_);
  DiskOperation operation;
  operation.kind = DiskOperation::kCreate;
  operation.node = FindParent(path, operation.name);
  if (operation.node < 0) return absl::NotFoundError("create " + path);
  if (Find(path) >= 0) return absl::AlreadyExistsError("create " + path);
  operation.child = next_node_++;
  nodes_[operation.child] = Node();
  operation.text = "create " + path;
  const int node = operation.child;
  Record(std::move(operation));
  return std::make_unique<OpenFile>(*this, node, path);
}

absl::StatusOr<std::unique_ptr<File>> SimulatedDisk::OpenForRead(const std::string& path) {
  if (absl::Status status = CallHook("open " + path); !status.ok()) return status;
  const std::lock_guard<std::mutex> lock(mutex_);
  const int node = Find(path);
  if (node < 0) return absl::NotFoundError("open " + path);
  return std::make_unique<OpenFile>(*this, node, path);
}

absl::StatusOr<std::unique_ptr<File>> SimulatedDisk::OpenForWrite(const std::string& path) {
  return OpenForRead(path);
}

absl::Status SimulatedDisk::CreateDirectory(const std::string& path) {
  if (absl::Status status = CallHook("mkdir " + path); !status.ok()) return status;
  const std::lock_guard<std::mutex> lock(mutex_);
  DiskOperation operation;
  operation.kind = DiskOperation::kMakeDirectory;
  operation.node = FindParent(path, operation.name);
  if (operation.node < 0) return absl::NotFoundError("mkdir " + path);
  if (Find(path) >= 0) return absl::AlreadyExistsError("mkdir " + path);
  operation.child = next_node_++;
  nodes_[operation.child].directory = true;
  operation.text = "mkdir " + path;
  Record(std::move(operation));
  return absl::OkStatus();
}

absl::Status SimulatedDisk::SyncDirectory(const std::string& path) {
  if (absl::Status status = CallHook("sync-directory " + path); !status.ok()) return status;
  const std::lock_guard<std::mutex> lock(mutex_);
  DiskOperation operation;
  operation.kind = DiskOperation::kSyncDirectory;
  operation.node = Find(path);
  if (operation.node < 0) return absl::NotFoundError("sync-directory " + path);
  operation.text = "sync-directory " + path;
  Record(std::move(operation));
  return absl::OkStatus();
}

absl::Status SimulatedDisk::Rename(const std::string& from, const std::string& to) {
  if (absl::Status status = CallHook("rename " + from + " " + to); !status.ok()) return status;
  const std::lock_guard<std::mutex> lock(mutex_);
  DiskOperation operation;
  operation.kind = DiskOperation::kRename;
  operation.node = FindParent(from, operation.name);
  operation.child = Find(from);
  if (operation.child < 0) return absl::NotFoundError("rename " + from);
  LONGSPAN_CHECK(FindParent(to, operation.to) == operation.node, "renames stay in one directory");
  operation.text = "rename " + from + " " + to;
  Record(std::move(operation));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<File>> SimulatedDisk::Reuse(const std::string& from,
                                                           const std::string& to) {
  if (absl::Status status = CallHook("reuse " + from + " " + to); !status.ok()) return status;
  const std::lock_guard<std::mutex> lock(mutex_);
  DiskOperation added, removed;
  added.kind = DiskOperation::kCreate;
  added.node = FindParent(to, added.name);
  removed.kind = DiskOperation::kRemove;
  removed.node = FindParent(from, removed.name);
  added.child = removed.child = Find(from);
  if (added.child < 0 || added.node < 0) return absl::NotFoundError("reuse " + from);
  if (Find(to) >= 0) return absl::AlreadyExistsError("reuse " + to);
  for (const auto& [node, content] : nodes_) {
    for (const auto& [name, child] : content.entries) {
      if (child == added.child && (node != removed.node || name != removed.name))
        return absl::FailedPreconditionError("reuse " + from + ": it has another name");
    }
  }
  added.text = "reuse " + to;
  removed.text = "reused " + from;
  const int node = added.child;
  Record(std::move(added));
  Record(std::move(removed));
  return std::make_unique<OpenFile>(*this, node, to);
}

absl::Status SimulatedDisk::Remove(const std::string& path) {
  if (absl::Status status = CallHook("remove " + path); !status.ok()) return status;
  const std::lock_guard<std::mutex> lock(mutex_);
  DiskOperation operation;
  operation.kind = DiskOperation::kRemove;
  operation.node = FindParent(path, operation.name);
  operation.child = Find(path);
  if (operation.child < 0) return absl::NotFoundError("remove " + path);
  if (!nodes_.at(operation.child).entries.empty()) {
    return absl::FailedPreconditionError("remove " + path + ": not empty");
  }
  operation.text = "remove " + path;
  Record(std::move(operation));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> SimulatedDisk::List(const std::string& path) {
  if (absl::Status status = CallHook("list " + path); !status.ok()) return status;
  const std::lock_guard<std::mutex> lock(mutex_);
  const int node = Find(path);
  if (node < 0) return absl::NotFoundError("list " + path);
  std::vector<std::string> names;
  for (const auto& [name, child] : nodes_.at(node).entries) names.push_back(name);
  return names;
}

bool SimulatedDisk::Exists(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return Find(path) >= 0;
}

void SimulatedDisk::set_hook(Hook hook) {
  const std::lock_guard<std::mutex> lock(mutex_);
  hook_ = std::move(hook);
}

std::vector<DiskOperation> SimulatedDisk::operations() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return operations_;
}

std::vector<std::string> SimulatedDisk::log() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::string> lines;
  for (const DiskOperation& operation : operations_) lines.push_back(operation.text);
  return lines;
}

std::unique_ptr<SimulatedDisk> SimulatedDisk::Clone() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto copy = std::make_unique<SimulatedDisk>();
  copy->nodes_ = nodes_;
  copy->next_node_ = next_node_;
  return copy;
}

std::string* SimulatedDisk::content(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int node = Find(path);
  LONGSPAN_CHECK(node >= 0, "no such file on the simulated disk");
  return &nodes_.at(node).content;
}

int64_t SimulatedDisk::VisitCrashStates(const std::vector<DiskOperation>& operations, size_t cut,
                                        int64_t most, uint64_t seed,
                                        const std::function<void(SimulatedDisk&)>& visit) {
  // Operations after the last sync of their node are open.
  std::map<int, size_t> synced;  // node -> operations before this index are durable
  for (size_t i = 0; i < cut; ++i) {
    const auto kind = operations[i].kind;
    if (kind == DiskOperation::kSync || kind == DiskOperation::kSyncDirectory) {
      synced[operations[i].node] = i;
    }
  }
  SimulatedDisk durable;
  std::vector<size_t> open;
  std::vector<int> fates(cut, kPresent);
  for (size_t i = 0; i < cut; ++i) {
    const DiskOperation& operation = operations[i];
    if (operation.kind == DiskOperation::kCreate ||
        operation.kind == DiskOperation::kMakeDirectory) {
      durable.nodes_[operation.child].directory = operation.kind == DiskOperation::kMakeDirectory;
      durable.next_node_ = std::max(durable.next_node_, operation.child + 1);
    }
    const auto found = synced.find(operation.node);
    const bool is_sync =
        operation.kind == DiskOperation::kSync || operation.kind == DiskOperation::kSyncDirectory;
    if (!is_sync && (found == synced.end() || i > found->second)) open.push_back(i);
  }
  // All durable operations of a node come before all its open ones, and nodes do not depend on each
  // other: the durable part is applied once.
  {
    std::vector<bool> is_open(cut, false);
    for (size_t i : open) is_open[i] = true;
    for (size_t i = 0; i < cut; ++i) {
      if (!is_open[i]) durable.Apply(operations[i], kPresent);
    }
  }
  int64_t visited = 0;
  const auto show = [&] {
    const std::unique_ptr<SimulatedDisk> disk = durable.Clone();
    for (size_t i : open) disk->Apply(operations[i], fates[i]);
    visit(*disk);
    ++visited;
  };

  int64_t combinations = 1;
  for (size_t i : open) {
    combinations = std::min(most + 1, combinations * Fates(operations[i]));
  }
  if (combinations <= most) {
    for (int64_t c = 0; c < combinations; ++c) {
      int64_t rest = c;
      for (size_t i : open) {
        fates[i] = static_cast<int>(rest % Fates(operations[i]));
        rest /= Fates(operations[i]);
      }
      show();
    }
    return visited;
  }
  // All lost, all present; then each operation alone lost, alone present, as far as `most` allows;
  // then at random.
  std::mt19937_64 random(seed * 1000003 + cut);
  std::vector<size_t> order = open;
  std::shuffle(order.begin(), order.end(), random);
  for (const int common : {kLost, kPresent}) {
    for (size_t i : open) fates[i] = common;
    show();
  }
  for (size_t i : order) {
    for (const int common : {kLost, kPresent}) {
      if (visited * 2 > most) break;
      for (size_t j : open) fates[j] = common;
      fates[i] = kPresent - common;
      show();
    }
  }
  while (visited < most) {
    for (size_t i : open) fates[i] = static_cast<int>(random() % Fates(operations[i]));
    show();
  }
  return visited;
}

}  // namespace longspan
