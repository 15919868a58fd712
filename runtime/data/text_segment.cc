#include "runtime/data/text_segment.h"

#include <algorithm>
#include <cstdint>

namespace longspan {
namespace {

bool IsContinuation(char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; }

}  // namespace

size_t FirstSegment(std::string_view text, bool end) {
  const size_t last_cut = std::min(text.size(), kSegmentMaximumBytes + 1);  // exclusive
  for (size_t cut = kSegmentTargetBytes; cut < last_cut; ++cut) {
    if (text[cut - 1] == '\n' && text[cut] != '\n') return cut;
  }
  if (text.size() <= kSegmentMaximumBytes) return end ? text.size() : 0;
  for (size_t cut = kSegmentMaximumBytes; cut >= kSegmentTargetBytes; --cut) {
    if (text[cut] == ' ' && text[cut - 1] != ' ') return cut;
  }
  // At most three steps: a longer run of continuation bytes is not UTF-8, and may be cut anywhere.
  for (size_t cut = kSegmentMaximumBytes; cut > kSegmentMaximumBytes - 4; --cut) {
    if (!IsContinuation(text[cut])) return cut;
  }
  return kSegmentMaximumBytes;
}

size_t Utf8Character(std::string_view text) {
  if (text.empty()) return 0;
  const uint8_t lead = static_cast<uint8_t>(text[0]);
  if (lead < 0x80) return 1;
  const size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < size) return 0;
  uint32_t code = lead & (0xFF >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    if (!IsContinuation(text[i])) return 0;
    code = code << 6 | (static_cast<uint8_t>(text[i]) & 0x3F);
  }
  const bool overlong = (size == 3 && code < 0x800) || (size == 4 && code < 0x10000);
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return overlong || surrogate || code > 0x10FFFF ? 0 : size;
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t size = Utf8Character(text);
    if (size == 0) return false;
    text.remove_prefix(size);
  }
  return true;
}

}  // namespace longspan
