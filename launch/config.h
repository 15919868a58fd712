// Configuration: the one table of keys, and reading a TOML file and --set values through it.
#ifndef LONGSPAN_LAUNCH_CONFIG_H_
#define LONGSPAN_LAUNCH_CONFIG_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/train/run_config.h"

namespace longspan {

struct LoadedConfig {
  RunConfig values;
  std::vector<ConfigEntry> entries;  // every key, in table order
  // The effective configuration as a TOML file, with a comment for each value that is not the
  // default.
  std::string ToToml() const;
};

// Reads `path` ("" for defaults alone), then applies `sets` ("section.key=value"). Relative paths
// inside the file are relative to the working directory. Errors name file and line, the key, what
// is wrong with it, and for unknown keys the nearest known one.
absl::StatusOr<LoadedConfig> LoadConfig(const std::string& path,
                                        const std::vector<std::string>& sets);
// The same from text; `name` stands for the path in messages.
absl::StatusOr<LoadedConfig> ParseConfig(const std::string& text, const std::string& name,
                                         const std::vector<std::string>& sets);

// The defaults as a commented TOML file: what `longspan config defaults` prints.
std::string DefaultConfigToml();

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_CONFIG_H_
