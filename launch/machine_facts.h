// Facts about this machine that `longspan doctor` shows: what is there, not how fast it is.
#ifndef LONGSPAN_LAUNCH_MACHINE_FACTS_H_
#define LONGSPAN_LAUNCH_MACHINE_FACTS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace longspan {

struct MachineFacts {
  std::string host;
  std::string processor;  // "AMD EPYC 9654"; empty where the system does not say
  int cores = 0;          // online
  int allowed_cores = 0;  // by this process's affinity mask
  int64_t memory_bytes = 0;
  int64_t available_bytes = 0;
  int64_t locked_bytes = 0;  // that may be locked; -1: no limit
  std::string io_uring;      // why it is not there; empty where it is
};
MachineFacts FindMachineFacts();

// A place where a run would write.
struct StorageFacts {
  std::string path;
  std::string kind;        // "ext4", "tmpfs", ...
  int64_t bytes = 0;       // of the file system
  int64_t free_bytes = 0;  // that this user may take
  std::string problem;     // empty: it can be written to
};
StorageFacts FindStorageFacts(const std::string& path);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_MACHINE_FACTS_H_
