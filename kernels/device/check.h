// LONGSPAN_CHECK: programming errors stop the program with the place and the reason. Errors of the
// outside world (files, peers, configuration) are absl::Status instead.
#ifndef LONGSPAN_KERNELS_DEVICE_CHECK_H_
#define LONGSPAN_KERNELS_DEVICE_CHECK_H_

namespace longspan {
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const char* message);
}  // namespace longspan

#define LONGSPAN_CHECK(condition, message) \
  (static_cast<bool>(condition)            \
       ? void(0)                           \
       : ::longspan::CheckFailed(__FILE__, __LINE__, #condition, message))

#endif  // LONGSPAN_KERNELS_DEVICE_CHECK_H_
