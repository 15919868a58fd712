// Values of configuration keys: reading one from TOML, and its text as TOML.
#ifndef LONGSPAN_LAUNCH_CONFIG_VALUES_H_
#define LONGSPAN_LAUNCH_CONFIG_VALUES_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <toml++/toml.h>
#include "absl/status/status.h"
#include "runtime/train/run_config.h"

namespace longspan {

// A Parse and a Format for every type that a key may have. Parse: InvalidArgument says what the key
// needs, without its name ("needs a whole number"), and *out may have been changed then. Parse
// takes what Format gives.
absl::Status Parse(const toml::node& node, std::string* out);
absl::Status Parse(const toml::node& node, int64_t* out);
absl::Status Parse(const toml::node& node, double* out);
absl::Status Parse(const toml::node& node, bool* out);
absl::Status Parse(const toml::node& node, std::array<double, 2>* out);
absl::Status Parse(const toml::node& node, ValidationSource* out);
absl::Status Parse(const toml::node& node, SaveInterval* out);
absl::Status Parse(const toml::node& node, HeadLimit* out);
absl::Status Parse(const toml::node& node, std::vector<double>* out);
absl::Status Parse(const toml::node& node, SamplingRate* out);
absl::Status Parse(const toml::node& node, std::vector<DataSource>* out);

std::string Format(const std::string& value);
std::string Format(int64_t value);
std::string Format(double value);
std::string Format(bool value);
std::string Format(const std::array<double, 2>& value);
std::string Format(const ValidationSource& value);
std::string Format(const SaveInterval& value);
std::string Format(const HeadLimit& value);
std::string Format(const std::vector<double>& value);
std::string Format(const SamplingRate& value);
std::string Format(const std::vector<DataSource>& value);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_CONFIG_VALUES_H_
