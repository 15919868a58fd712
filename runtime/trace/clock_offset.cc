#include "runtime/trace/clock_offset.h"

#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/device/memory.h"

namespace longspan {
namespace {

constexpr int kQuestions = 9;  // the first one may have to open a connection

// Two words of memory that messages may be written to: the question and the answer.
struct Words {
  Buffer buffer;
  TensorView word(int64_t index) const {
    return buffer.Tensor(DType::kI64, {1}, index * kWordBytes);
  }
  int64_t Read(int64_t index) const {
    int64_t value = 0;
    std::memcpy(&value, word(index).raw(), sizeof(value));
    return value;
  }
  void Write(int64_t index, int64_t value) const {
    std::memcpy(word(index).raw(), &value, sizeof(value));
  }
  static constexpr int64_t kWordBytes = 64;
};

}  // namespace

absl::StatusOr<int64_t> ClockOffset(Transport& transport, Stream& stream,
                                    const std::function<int64_t()>& clock) {
  absl::StatusOr<Buffer> buffer =
      Buffer::Allocate(stream.device().memory(), 2 * Words::kWordBytes, "clock");
  if (!buffer.ok()) return buffer.status();
  const Words words{*std::move(buffer)};
  words.Write(0, 0);
  const auto exchange = [&](std::vector<Message> sends, std::vector<Message> receives) {
    return transport.Exchange(std::move(sends), std::move(receives), stream).Wait();
  };
  if (transport.rank() == 0) {
    for (int peer = 1; peer < transport.size(); ++peer) {
      for (int question = 0; question < kQuestions; ++question) {
        if (absl::Status status = exchange({}, {{peer, words.word(0)}}); !status.ok()) {
          return status;
        }
        words.Write(1, clock());
        if (absl::Status status = exchange({{peer, words.word(1)}}, {}); !status.ok()) {
          return status;
        }
      }
    }
    return 0;
  }
  int64_t quickest = std::numeric_limits<int64_t>::max(), offset = 0;
  for (int question = 0; question < kQuestions; ++question) {
    const int64_t asked = clock();
    absl::Status status = exchange({{0, words.word(0)}}, {{0, words.word(1)}});
    const int64_t answered = clock();
    if (!status.ok()) return status;
    // While the ranks before this one ask, the first answer is late.
    if (answered - asked < quickest) {
      quickest = answered - asked;
      offset = words.Read(1) - (asked + quickest / 2);
    }
  }
  return offset;
}

}  // namespace longspan
