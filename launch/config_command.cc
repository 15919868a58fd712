#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "launch/commands.h"
#include "launch/config.h"
#include "nlohmann/json.hpp"

namespace longspan {

void RegisterConfigCommand(CLI::App& root, SelectedCommand* selected) {
  CLI::App* config = root.add_subcommand("config", "Show configuration keys and values");
  config->require_subcommand(1);

  CLI::App* defaults = config->add_subcommand(
      "defaults", "Print every key with its default, as a configuration file");
  defaults->footer("Example:\n  longspan config defaults > my.toml");
  defaults->callback([selected] {
    *selected = [] {
      std::fputs(DefaultConfigToml().c_str(), stdout);
      return absl::OkStatus();
    };
  });

  struct Options {
    std::string path;
    std::vector<std::string> sets;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* show =
      config->add_subcommand("show", "Print effective values and where each came from");
  show->add_option("CONFIG", options->path, "configuration file")->required();
  show->add_option("--set", options->sets, "section.key=value, over the file; repeatable")
      ->take_all();
  show->add_flag("--json", options->json, "as JSON: {key: {value, origin}}");
  show->footer("Example:\n  longspan config show my.toml --set run.steps=500");
  show->callback([selected, options] {
    *selected = [options]() -> absl::Status {
      absl::StatusOr<LoadedConfig> loaded = LoadConfig(options->path, options->sets);
      if (!loaded.ok()) return loaded.status();
      if (!options->json) {
        std::fputs(loaded->ToToml().c_str(), stdout);
        return absl::OkStatus();
      }
      nlohmann::json object = nlohmann::json::object();
      for (const ConfigEntry& entry : loaded->entries)
        object[entry.key] = {{"value", entry.value}, {"origin", entry.origin}};
      std::puts(object.dump(2).c_str());
      return absl::OkStatus();
    };
  });
}

}  // namespace longspan
