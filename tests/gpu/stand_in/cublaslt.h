// What tests ask of the stand-in for cuBLASLt beside the library's own functions.
#ifndef LONGSPAN_TESTS_GPU_STAND_IN_CUBLASLT_H_
#define LONGSPAN_TESTS_GPU_STAND_IN_CUBLASLT_H_

#include <cstdint>

extern "C" {

// From now on no algorithm is found for a product with an epilogue, or again.
void LongspanStandInRefuseEpilogues(bool refuses);
// How often an algorithm was asked for so far.
int64_t LongspanStandInAlgorithmQuestions();

}  // extern "C"

#endif  // LONGSPAN_TESTS_GPU_STAND_IN_CUBLASLT_H_
