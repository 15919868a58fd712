// Where a long text may be cut before it is tokenised.
//
// SentencePiece needs some hundred bytes of memory for each byte it encodes at once, so a document
// is encoded in segments of a few kilobytes. The cuts depend on the text alone, never on how it
// arrived: a document streamed through buffers of any size gives the same segments, so the same
// tokens, as the same document in one string. Pure functions.
#ifndef LONGSPAN_RUNTIME_DATA_TEXT_SEGMENT_H_
#define LONGSPAN_RUNTIME_DATA_TEXT_SEGMENT_H_

#include <cstddef>
#include <string_view>

namespace longspan {

constexpr size_t kSegmentTargetBytes = 1024;  // cut at the first line end from here on
constexpr size_t kSegmentMaximumBytes = 8192;

// Bytes of the first segment of `text`, which starts where the last segment ended. `end`: nothing
// follows `text`. Returns 0 when the rest of the text decides (never with `end`, and never for more
// than kSegmentMaximumBytes bytes) or `text` is empty. Cuts after a run of newlines; in longer
// lines before a space; else between characters.
size_t FirstSegment(std::string_view text, bool end);

// Bytes of the well-formed UTF-8 character that `text` begins with; 0 where it begins with none
// (empty text too).
size_t Utf8Character(std::string_view text);
bool IsUtf8(std::string_view text);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_TEXT_SEGMENT_H_
