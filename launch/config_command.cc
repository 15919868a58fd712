#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "launch/command_line.h"
#include "launch/commands.h"
#include "launch/config.h"
#include "nlohmann/json.hpp"

namespace longspan {

void RegisterConfigCommand(const Command& root, SelectedCommand* selected) {
  const Command config = root.AddCommand("config", "Show configuration keys and values");
  config.RequireCommand();

  const Command defaults =
      config.AddCommand("defaults", "Print every key with its default, as a configuration file");
  defaults.Footer("Example:\n  longspan config defaults > my.toml");
  defaults.OnChosen([selected] {
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
  const Command show = config.AddCommand("show", "Print effective values and where each came from");
  show.AddOption("CONFIG", options->path, "configuration file").Required();
  show.AddOption("--set", options->sets, "section.key=value, over the file; repeatable")
      .Repeatable();
  show.AddFlag("--json", options->json, "as JSON: {key: {value, origin}}");
  show.Footer("Example:\n  longspan config show my.toml --set run.steps=500");
  show.OnChosen([selected, options] {
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
