// The names in a token data set, shared by its reader and its writer. Private to this folder.
//
// One HDF5 file: /tokens (1-D, u16 or u32, contiguous when written by us), /offsets (u64, documents
// + 1 positions in /tokens; document i is [offsets[i], offsets[i+1]), end of sequence included),
// /tokenizer (u8, the SentencePiece model, where there is one); attributes of the root group:
// format, version, vocab_size, eos, tokenizer_kind ("byte", "sentencepiece", "none"). Readers
// ignore what they do not know and refuse a newer version.
#ifndef LONGSPAN_RUNTIME_DATA_TOKEN_FORMAT_H_
#define LONGSPAN_RUNTIME_DATA_TOKEN_FORMAT_H_

#include <cstdint>

namespace longspan {

constexpr char kTokenFormat[] = "longspan-tokens";
constexpr int64_t kTokenFormatVersion = 1;

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_TOKEN_FORMAT_H_
