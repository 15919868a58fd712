// Content sums: what memory holds, as one number that does not depend on the order in which, or
// the parts by which, it is looked at. With them whoever reads memory later can tell that it is
// what its writer wrote.
//
// The sum over 32-bit words w at positions p is sum of w * Key(p) mod 2^64, so sums of parts add
// up, whichever thread or block has which, and order does not matter: as cheap on a GPU as in
// vector lanes. Key(p) = Scale(p / 1024) * Table[p mod 1024]: a random odd 64-bit number times a
// random odd 32-bit one. One changed word always changes the sum. So do several, and words that
// have moved, but for one chance in 2^32 within 1024 positions and in 2^64 beyond, unless somebody
// chose them to (Carter and Wegman's multilinear hashing, with keys that are fixed).
#ifndef LONGSPAN_KERNELS_DEVICE_CONTENT_SUM_H_
#define LONGSPAN_KERNELS_DEVICE_CONTENT_SUM_H_

#include <cstdint>

namespace longspan {

// Of `count` 32-bit words in host memory (any alignment) that are at positions `position`, ... .
// Thread-safe.
uint64_t ContentSum(const void* words, int64_t count, int64_t position);

}  // namespace longspan

#endif  // LONGSPAN_KERNELS_DEVICE_CONTENT_SUM_H_
