// CRC-32C for chunks of files, CRC-64 for tensors, both through ISA-L (several GB/s a core).
//
// A CRC of a whole tensor follows from the CRCs of its parts (CombineCrc64), so the state hash does
// not depend on how the tensor was cut among ranks. They find damage and mistakes; they are no
// protection against somebody who forges files.
#ifndef LONGSPAN_CHECKPOINT_CHECKSUM_H_
#define LONGSPAN_CHECKPOINT_CHECKSUM_H_

#include <cstdint>
#include <string>

namespace longspan {

// CRC-32C (Castagnoli) of `bytes` bytes: "123456789" gives 0xe3069283. `crc` is that of the bytes
// before `data`, 0 at the start.
uint32_t ExtendCrc32c(uint32_t crc, const void* data, int64_t bytes);
inline uint32_t Crc32c(const void* data, int64_t bytes) { return ExtendCrc32c(0, data, bytes); }

// CRC-64/XZ: "123456789" gives 0x995dc9bbdf1939fa. `crc` is that of the bytes before `data`, 0 at
// the start.
uint64_t ExtendCrc64(uint64_t crc, const void* data, int64_t bytes);

// CRC-64/XZ of A followed by B, from those of A and B and the length of B in bytes. O(log bytes).
uint64_t CombineCrc64(uint64_t crc_a, uint64_t crc_b, int64_t bytes_b);

// 8 and 16 lower-case hexadecimal digits, as files hold them.
std::string Hex32(uint32_t value);
std::string Hex64(uint64_t value);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_CHECKSUM_H_
