// RecordedFile: reads the HDF5 files that make_vectors.py writes.
#ifndef LONGSPAN_TESTS_PARITY_RECORDED_FILE_H_
#define LONGSPAN_TESTS_PARITY_RECORDED_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace longspan {

// Ends the test program with a message when something is missing.
class RecordedFile {
 public:
  explicit RecordedFile(const std::string& path);
  ~RecordedFile();
  RecordedFile(const RecordedFile&) = delete;
  RecordedFile& operator=(const RecordedFile&) = delete;

  double Number(const std::string& attribute) const;
  std::string Text(const std::string& attribute) const;
  // A whole data set, converted.
  std::vector<double> Values(const std::string& name) const;

 private:
  std::string path_;
  int64_t file_ = -1;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_PARITY_RECORDED_FILE_H_
