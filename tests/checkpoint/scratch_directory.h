// ScratchDirectory: a directory on the real disk that goes away with the object.
#ifndef LONGSPAN_TESTS_CHECKPOINT_SCRATCH_DIRECTORY_H_
#define LONGSPAN_TESTS_CHECKPOINT_SCRATCH_DIRECTORY_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

namespace longspan {

class ScratchDirectory {
 public:
  ScratchDirectory() {
    path_ = testing::TempDir() + "longspan-XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "cannot create " << path_;
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace longspan

#endif  // LONGSPAN_TESTS_CHECKPOINT_SCRATCH_DIRECTORY_H_
