#include "system_calls.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <utility>

namespace longspan {
namespace {

struct Installed {
  std::string where;
  SystemCallHook::Hook hook;
};
std::atomic<Installed*> installed = nullptr;

// The C library's own.
template <typename Function>
Function Real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

SystemCallFault Consult(const char* call, int descriptor) {
  const Installed* now = installed.load();
  if (now == nullptr) return {};
  char link[32], path[1024];
  std::snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof(path) - 1);
  if (length <= 0) return {};
  const std::string name(path, static_cast<size_t>(length));
  if (name.find(now->where) == std::string::npos) return {};
  return now->hook(std::string(call) + " " + name.substr(name.rfind('/') + 1));
}

// Asks the hook, then makes the call, with fewer bytes if it says so.
template <typename Call>
ssize_t Transfer(const char* name, int descriptor, size_t bytes, Call call) {
  const SystemCallFault fault = Consult(name, descriptor);
  if (fault.error != 0) {
    errno = fault.error;
    return -1;
  }
  return call(fault.shorter ? std::max<size_t>(1, bytes / 3) : bytes);
}

}  // namespace

SystemCallHook::SystemCallHook(std::string where, Hook hook) {
  installed = new Installed{std::move(where), std::move(hook)};
}

SystemCallHook::~SystemCallHook() { delete installed.exchange(nullptr); }

}  // namespace longspan

// Found before the C library's, because they are in the program itself.
extern "C" {

ssize_t pwrite(int descriptor, const void* data, size_t bytes, off_t offset) {
  static const auto real = longspan::Real<decltype(&pwrite)>("pwrite");
  return longspan::Transfer("pwrite", descriptor, bytes,
                            [&](size_t part) { return real(descriptor, data, part, offset); });
}

ssize_t pread(int descriptor, void* data, size_t bytes, off_t offset) {
  static const auto real = longspan::Real<decltype(&pread)>("pread");
  return longspan::Transfer("pread", descriptor, bytes,
                            [&](size_t part) { return real(descriptor, data, part, offset); });
}

int fdatasync(int descriptor) {
  static const auto real = longspan::Real<decltype(&fdatasync)>("fdatasync");
  return static_cast<int>(
      longspan::Transfer("fdatasync", descriptor, 0, [&](size_t) { return real(descriptor); }));
}

int fsync(int descriptor) {
  static const auto real = longspan::Real<decltype(&fsync)>("fsync");
  return static_cast<int>(
      longspan::Transfer("fsync", descriptor, 0, [&](size_t) { return real(descriptor); }));
}

int fallocate(int descriptor, int mode, off_t offset, off_t bytes) {
  static const auto real = longspan::Real<decltype(&fallocate)>("fallocate");
  return static_cast<int>(longspan::Transfer(
      "fallocate", descriptor, 0, [&](size_t) { return real(descriptor, mode, offset, bytes); }));
}

}  // extern "C"
