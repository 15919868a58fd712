#include "launch/machine_facts.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "checkpoint/storage.h"

namespace longspan {
namespace {

// What follows "key" and a colon on the first line that begins with it.
std::string FieldOf(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) != 0) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

int64_t KilobytesOf(const char* key) {
  return std::strtoll(FieldOf("/proc/meminfo", key).c_str(), nullptr, 10) * 1024;
}

std::string KindOf(int64_t type) {
  switch (type) {
    case 0xEF53:
      return "ext4";
    case 0x01021994:
      return "tmpfs";
    case 0x58465342:
      return "xfs";
    case 0x9123683E:
      return "btrfs";
    case 0x6969:
      return "nfs";
    case 0x794C7630:
      return "overlay";
    case 0x0BD00BD0:
      return "lustre";
    default:
      return absl::StrCat("type 0x", absl::Hex(type));
  }
}

}  // namespace

MachineFacts FindMachineFacts() {
  MachineFacts facts;
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  facts.host = host;
  facts.processor = FieldOf("/proc/cpuinfo", "model name");
  facts.cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  cpu_set_t set;
  CPU_ZERO(&set);
  facts.allowed_cores =
      sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : facts.cores;
  facts.memory_bytes = KilobytesOf("MemTotal");
  facts.available_bytes = KilobytesOf("MemAvailable");
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  facts.locked_bytes = limit.rlim_cur == RLIM_INFINITY ? -1 : static_cast<int64_t>(limit.rlim_cur);
  const auto storage = OpenStorage({.engine = StorageOptions::Engine::kIoUring});
  if (!storage.ok()) facts.io_uring = std::string(storage.status().message());
  return facts;
}

StorageFacts FindStorageFacts(const std::string& path) {
  StorageFacts facts;
  facts.path = path;
  struct statfs system {};
  if (statfs(path.c_str(), &system) != 0) {
    facts.problem = std::strerror(errno);
    return facts;
  }
  facts.kind = KindOf(static_cast<int64_t>(system.f_type));
  facts.bytes = static_cast<int64_t>(system.f_blocks) * system.f_bsize;
  facts.free_bytes = static_cast<int64_t>(system.f_bavail) * system.f_bsize;
  if (access(path.c_str(), W_OK) != 0) facts.problem = std::strerror(errno);
  return facts;
}

}  // namespace longspan
