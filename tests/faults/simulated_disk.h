// SimulatedDisk: a file system in memory that remembers every operation, can be told to fail any of
// them, and can show what a disk might hold after a power cut at any point.
//
// The model is as hostile as POSIX allows. Until a file is synced, each write to it (and each
// reservation) may be on disk, missing or torn, independently of the others. Until a directory is
// synced, each creation, rename and removal in it may be on disk or missing, independently of the
// others and of the files' contents; syncing a file says nothing about its name. A rename within a
// directory is on disk or not, nothing between; one from a directory to another is on disk in
// either, in both or in none.
#ifndef LONGSPAN_TESTS_FAULTS_SIMULATED_DISK_H_
#define LONGSPAN_TESTS_FAULTS_SIMULATED_DISK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "checkpoint/file_system.h"

namespace longspan {

// One operation that changes the disk or makes it durable.
struct DiskOperation {
  enum Kind { kCreate, kMakeDirectory, kWrite, kReserve, kSync, kSyncDirectory, kRename, kRemove };
  Kind kind = kCreate;
  int node = 0;   // file that is written or synced; directory whose entries change or are synced
  int child = 0;  // file or directory that the entry names
  std::string name, to;  // entry; new name of a rename
  int64_t offset = 0;    // of a write; size of a reservation
  std::string data;
  std::string text;  // "write /run/a", "rename /run/a.tmp /run/a"
};

// Thread-safe.
class SimulatedDisk : public FileSystem {
 public:
  // Called before every operation, reads included, with "operation path"; what it returns other
  // than OK is the outcome.
  using Hook = std::function<absl::Status(const std::string& text)>;

  // An empty disk with the directory /run.
  SimulatedDisk();

  absl::StatusOr<std::unique_ptr<File>> Create(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<File>> OpenForRead(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<File>> OpenForWrite(const std::string& path) override;
  absl::Status CreateDirectory(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::StatusOr<std::unique_ptr<File>> Reuse(const std::string& from,
                                              const std::string& to) override;
  bool CanReuse(const std::string& /*directory*/) override { return true; }
  absl::Status Remove(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  bool Exists(const std::string& path) override;

  void set_hook(Hook hook);
  // Everything that changed the disk so far.
  std::vector<DiskOperation> operations() const;
  // The same, as text.
  std::vector<std::string> log() const;
  // A copy of what the running system sees, with an empty log and no hook.
  std::unique_ptr<SimulatedDisk> Clone() const;
  // The content of a file, for tests that damage it. Fails the program if there is none.
  std::string* content(const std::string& path);

  // Calls `visit` with disks that a power cut before operation `cut` of `operations` (all since the
  // disk was empty) may leave: every combination of unsynced operations if there are at most
  // `most`, else the extreme ones and a sample drawn from `seed`. Returns how many.
  static int64_t VisitCrashStates(const std::vector<DiskOperation>& operations, size_t cut,
                                  int64_t most, uint64_t seed,
                                  const std::function<void(SimulatedDisk&)>& visit);

 private:
  struct Node {
    bool directory = false;
    std::string content;
    std::map<std::string, int> entries;
  };
  class OpenFile;

  // The functions below need the mutex held.
  int Find(const std::string& path) const;  // -1: not there
  // Splits into an existing directory (-1 if it is none) and a name.
  int FindParent(const std::string& path, std::string& name) const;
  void Apply(const DiskOperation& operation, int torn);
  void Record(DiskOperation operation);
  absl::Status CallHook(const std::string& text);

  mutable std::mutex mutex_;
  Hook hook_;
  std::map<int, Node> nodes_;
  int next_node_ = 0;
  std::vector<DiskOperation> operations_;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_FAULTS_SIMULATED_DISK_H_
