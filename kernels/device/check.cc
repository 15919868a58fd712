#include "kernels/device/check.h"

#include <cstdio>
#include <cstdlib>

namespace longspan {

void CheckFailed(const char* file, int line, const char* condition, const char* message) {
  std::fprintf(stderr, "longspan: internal error at %s:%d: %s (%s)\n", file, line, message,
               condition);
  std::fflush(stderr);
  std::abort();
}

}  // namespace longspan
