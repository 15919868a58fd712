// SystemCallHook: what the C library's file calls do in a test program that links system_calls.cc:
// fewer bytes than asked for, EINTR, ENOSPC, EIO. Below FileSystem, whose implementations promise
// to handle interrupted calls and short transfers.
#ifndef LONGSPAN_TESTS_FAULTS_SYSTEM_CALLS_H_
#define LONGSPAN_TESTS_FAULTS_SYSTEM_CALLS_H_

#include <functional>
#include <string>

namespace longspan {

struct SystemCallFault {
  int error = 0;         // not 0: the call fails so
  bool shorter = false;  // it transfers a part of the bytes, at least one
};

// Told "pwrite rank-00000.h5" and so on before each call on a file whose path contains `where`, on
// any thread. Set while no other thread makes such calls; one hook at a time.
class SystemCallHook {
 public:
  using Hook = std::function<SystemCallFault(const std::string& text)>;
  SystemCallHook(std::string where, Hook hook);
  ~SystemCallHook();
  SystemCallHook(const SystemCallHook&) = delete;
  SystemCallHook& operator=(const SystemCallHook&) = delete;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_FAULTS_SYSTEM_CALLS_H_
