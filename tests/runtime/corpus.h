// A small token data set with documents of chosen lengths, for tests of training.
#ifndef LONGSPAN_TESTS_RUNTIME_CORPUS_H_
#define LONGSPAN_TESTS_RUNTIME_CORPUS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace longspan {

// Writes a byte-tokenised data set whose document i has lengths[i] inputs, of pseudo-random words.
// Ends the program on failure.
void WriteCorpus(const std::string& path, const std::vector<int64_t>& lengths);

}  // namespace longspan

#endif  // LONGSPAN_TESTS_RUNTIME_CORPUS_H_
