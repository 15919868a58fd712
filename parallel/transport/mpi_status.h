// Errors of MPI calls as Status, and how this folder waits for MPI.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_MPI_STATUS_H_
#define LONGSPAN_PARALLEL_TRANSPORT_MPI_STATUS_H_

#include <mpi.h>

#include <vector>

#include "absl/status/status.h"

namespace longspan {

// Ok for MPI_SUCCESS; otherwise Unavailable with the call, this rank and MPI's own words.
absl::Status MpiStatus(int code, const char* call, int rank);

// For polling loops: yields the core at first, then sleeps for longer and longer, about a twentieth
// of the time waited so far and at most a millisecond.
class PollPause {
 public:
  // The sleep due now, in microseconds; 0: only yield.
  int NextMicroseconds();
  void Pause();
  // Something came: more may follow sooner than that did. A steady stream is looked at about five
  // times for each arrival.
  void Shorten() { microseconds_ *= 0.8; }
  // The wait is for something new.
  void Reset() { *this = PollPause(); }

 private:
  int yields_ = 0;
  double microseconds_ = 0;
};

// MPI_Waitall and MPI_Wait that pause, so that a rank that waits for a slower one leaves it the
// core.
absl::Status WaitForAll(std::vector<MPI_Request>& requests, const char* call, int rank);
absl::Status WaitFor(MPI_Request request, const char* call, int rank);

}  // namespace longspan

#define LONGSPAN_MPI_CONCAT_INNER(a, b) a##b
#define LONGSPAN_MPI_CONCAT(a, b) LONGSPAN_MPI_CONCAT_INNER(a, b)
// Returns the Status of a failed MPI call from the function. `rank_` must be in scope.
#define LONGSPAN_MPI_RETURN_IF_ERROR(call)                 \
  if (int LONGSPAN_MPI_CONCAT(code_, __LINE__) = (call);   \
      LONGSPAN_MPI_CONCAT(code_, __LINE__) != MPI_SUCCESS) \
  return ::longspan::MpiStatus(LONGSPAN_MPI_CONCAT(code_, __LINE__), #call, rank_)

#endif  // LONGSPAN_PARALLEL_TRANSPORT_MPI_STATUS_H_
