// Megatron-LM's pre-tokenised data, read in place. Private to this folder: TokenFile::Open is the
// way in.
//
// PREFIX.idx, little-endian: "MMIDIDX\0\0"; version u64 = 1; type of the tokens u8 (1 u8, 2 i8, 3
// i16, 4 i32, 5 i64, 8 u16); sequences u64; entries of the document index u64 (documents + 1);
// then, one after another: tokens of each sequence i32, byte position of each sequence in the .bin
// i64, first sequence of each document i64 (the last entry is the number of sequences). What
// follows (modes of multimodal sequences) is ignored. PREFIX.bin: the tokens, without a header.
#ifndef LONGSPAN_RUNTIME_DATA_MEGATRON_FILE_H_
#define LONGSPAN_RUNTIME_DATA_MEGATRON_FILE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/data/token_file.h"

namespace longspan {

// `prefix`: the path without .bin or .idx. Sequences must lie in the .bin in order and without
// gaps, as Megatron's builder writes them.
absl::StatusOr<std::unique_ptr<TokenFile>> OpenMegatronFile(const std::string& prefix);

}  // namespace longspan

#endif  // LONGSPAN_RUNTIME_DATA_MEGATRON_FILE_H_
