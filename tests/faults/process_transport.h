// RunProcesses: a job whose ranks are forked processes, joined by sockets. Cheap enough to kill
// thousands of them: a rank that dies is noticed by the others as a closed socket.
#ifndef LONGSPAN_TESTS_FAULTS_PROCESS_TRANSPORT_H_
#define LONGSPAN_TESTS_FAULTS_PROCESS_TRANSPORT_H_

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "parallel/transport/transport.h"

namespace longspan {

struct ProcessOptions {
  absl::Duration timeout = absl::Seconds(60);
  // Called in the parent when all ranks run; may kill them. They are not waited for yet.
  std::function<void(const std::vector<pid_t>&)> running;
  // Where a rank stands, for the report of a time-out.
  std::function<std::string(int rank)> where;
};

struct ProcessesEnd {
  // By rank: exit status, or minus the signal that killed it.
  std::vector<int> ends;
  // Not empty: the ranks did not end in time and were killed; says where each stood.
  std::string time_out;
};

// Forks `ranks` processes that call `body` and exit with what it returns. The transport serves host
// calls and tagged messages alone. The calling process has one thread.
ProcessesEnd RunProcesses(int ranks, const std::function<int(Transport&)>& body,
                          const ProcessOptions& options = {});

}  // namespace longspan

#endif  // LONGSPAN_TESTS_FAULTS_PROCESS_TRANSPORT_H_
