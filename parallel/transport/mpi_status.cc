#include "parallel/transport/mpi_status.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"

namespace longspan {

absl::Status MpiStatus(int code, const char* call, int rank) {
  if (code == MPI_SUCCESS) return absl::OkStatus();
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  // The macro hands the whole expression over; its name is what a reader looks for.
  const std::string name = std::string(call).substr(0, std::string(call).find('('));
  return absl::UnavailableError(
      absl::StrCat(name, " failed on rank ", rank, ": ", std::string(text, length)));
}

int PollPause::NextMicroseconds() {
  constexpr int kYields = 64;
  constexpr double kShortest = 20, kLongest = 1000, kGrowth = 1.05;
  if (yields_ < kYields) {
    ++yields_;
    return 0;
  }
  microseconds_ = std::clamp(kGrowth * microseconds_, kShortest, kLongest);
  return static_cast<int>(microseconds_);
}

void PollPause::Pause() {
  const int microseconds = NextMicroseconds();
  if (microseconds == 0) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
  }
}

absl::Status WaitForAll(std::vector<MPI_Request>& requests, const char* call, int rank) {
  PollPause pause;
  while (true) {
    int done = 0;
    const int code =
        MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE);
    if (code != MPI_SUCCESS) return MpiStatus(code, call, rank);
    if (done) return absl::OkStatus();
    pause.Pause();
  }
}

absl::Status WaitFor(MPI_Request request, const char* call, int rank) {
  std::vector<MPI_Request> requests = {request};
  return WaitForAll(requests, call, rank);
}

}  // namespace longspan
