#include "corpus.h"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>

#include "kernels/device/check.h"
#include "runtime/data/build.h"

namespace longspan {

void WriteCorpus(const std::string& path, const std::vector<int64_t>& lengths) {
  const std::string directory = path + ".texts";
  std::filesystem::create_directories(directory);
  std::mt19937_64 random(3);
  const char* const words[] = {"for ",   "int ", "(i = 0) ", "return ",
                               "while ", "{}\n", "x += y; ", "// note\n"};
  for (size_t i = 0; i < lengths.size(); ++i) {
    std::string text;
    while (static_cast<int64_t>(text.size()) < lengths[i]) text += words[random() % 8];
    text.resize(lengths[i]);  // with the end of sequence: lengths[i] inputs
    char name[32];
    std::snprintf(name, sizeof(name), "/%06zu.txt", i);
    std::ofstream(directory + name) << text;
  }
  BuildOptions options;
  options.text.inputs = {directory};
  options.output = path;
  const absl::StatusOr<BuildReport> report = BuildTokenFile(options, nullptr);
  LONGSPAN_CHECK(report.ok() && report->text.documents == static_cast<int64_t>(lengths.size()),
                 "corpus not built");
}

}  // namespace longspan
