#include "scenario.h"

#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "checkpoint/tiers.h"

namespace longspan {
namespace {

const std::vector<std::string>& Words() {
  static const std::vector<std::string> words = {
      "disk full", "io error",     "slow",          "stop",  "die",        "die after",
      "power cut", "lose message", "newer attempt", "short", "interrupted"};
  return words;
}

const std::vector<std::string>& PlaceWords() {
  static const std::vector<std::string> words = {"checkpoints", "memory", "local"};
  return words;
}

class Reader {
 public:
  using Keys = std::map<std::string, std::function<void(const toml::node&)>>;

  // Calls the reader of each key; a key that nobody reads is an error, or a misspelt fault would
  // never be injected.
  void Read(const toml::table& table, const Keys& keys) {
    for (const auto& [key, node] : table) {
      const auto found = keys.find(std::string(key.str()));
      if (found == keys.end()) {
        Fail(node, absl::StrCat("unknown key '", std::string(key.str()), "'"));
      } else {
        found->second(node);
      }
    }
  }
  void Read(const toml::node& node, std::string& to) {
    const auto value = node.value<std::string>();
    if (!value) return Fail(node, "a string is wanted");
    to = *value;
  }
  void Read(const toml::node& node, int64_t& to) {
    const auto value = node.value<int64_t>();
    if (!value) return Fail(node, "a whole number is wanted");
    to = *value;
  }
  void Read(const toml::node& node, bool& to) {
    const auto value = node.value<bool>();
    if (!value) return Fail(node, "true or false is wanted");
    to = *value;
  }
  void Read(const toml::node& node, Drawn& to) {
    if (const toml::array* pair = node.as_array()) {
      if (pair->size() != 2) return Fail(node, "[lowest, highest] is wanted");
      Read(*pair->get(0), to.low);
      Read(*pair->get(1), to.high);
      if (to.low > to.high) Fail(node, "lowest above highest");
    } else {
      Read(node, to.low);
      to.high = to.low;
    }
  }
  void Read(const toml::node& node, std::vector<std::string>& to) {
    const toml::array* array = node.as_array();
    if (array == nullptr) return Fail(node, "a list of strings is wanted");
    to.clear();
    for (const toml::node& each : *array) Read(each, to.emplace_back());
  }
  template <typename Element, typename ReadElement>
  void Read(const toml::node& node, std::vector<Element>& to, ReadElement read) {
    const toml::array* array = node.as_array();
    if (array == nullptr) return Fail(node, "tables are wanted");
    for (const toml::node& each : *array) {
      if (each.as_table() == nullptr) return Fail(each, "a table is wanted");
      read(*each.as_table(), to.emplace_back());
    }
  }
  void Choose(const toml::node& node, std::string& to, const std::vector<std::string>& words) {
    Read(node, to);
    if (std::find(words.begin(), words.end(), to) == words.end()) {
      Fail(node, absl::StrCat("'", to, "' is none of the words for this"));
    }
  }

  void ReadFault(const toml::table& table, FaultDescription& fault) {
    Read(table, {{"at", [&](auto& node) { Read(node, fault.at); }},
                 {"in", [&](auto& node) { Choose(node, fault.in, PlaceWords()); }},
                 {"rank", [&](auto& node) { Read(node, fault.rank); }},
                 {"nth", [&](auto& node) { Read(node, fault.nth); }},
                 {"times", [&](auto& node) { Read(node, fault.times); }},
                 {"what", [&](auto& node) { Choose(node, fault.what, Words()); }},
                 {"milliseconds", [&](auto& node) { Read(node, fault.milliseconds); }}});
    if (fault.at.empty() || fault.what.empty()) Fail(table, "a fault has 'at' and 'what'");
  }
  void ReadDamage(const toml::table& table, DamageDescription& damage) {
    Read(table, {{"in", [&](auto& node) { Choose(node, damage.in, PlaceWords()); }},
                 {"node", [&](auto& node) { Read(node, damage.node); }},
                 {"file", [&](auto& node) { Read(node, damage.file); }},
                 {"what", [&](auto& node) {
                    Choose(node, damage.what, {"bit flip", "truncate", "remove", "lose node"});
                  }}});
    if (damage.what.empty() || damage.file.empty() != (damage.what == "lose node")) {
      Fail(table, "damage has 'file' and 'what', or 'node' and what = \"lose node\"");
    }
  }
  void ReadTier(const toml::table& table, TierDescription& tier) {
    Read(table, {{"name",
                  [&](auto& node) {
                    Choose(node, tier.name, {"memory", "local"});
                  }},
                 {"every", [&](auto& node) { Read(node, tier.every); }},
                 {"keep_last", [&](auto& node) { Read(node, tier.keep_last); }},
                 {"partner", [&](auto& node) { Read(node, tier.partner); }},
                 {"erasure", [&](auto& node) {
                    Read(node, tier.erasure);
                    if (!ParseErasure(tier.erasure).ok()) Fail(node, "\"k+m\" is wanted");
                  }}});
    if (tier.name.empty()) Fail(table, "a tier has a name");
  }
  void ReadAttempt(const toml::table& table, AttemptDescription& attempt) {
    Read(table, {{"ranks", [&](auto& node) { Read(node, attempt.ranks); }},
                 {"nodes", [&](auto& node) { Read(node, attempt.nodes); }},
                 {"saves", [&](auto& node) { Read(node, attempt.saves); }},
                 {"every", [&](auto& node) { Read(node, attempt.every); }},
                 {"tier",
                  [&](auto& node) {
                    Read(node, attempt.tiers, [&](auto& t, auto& tier) { ReadTier(t, tier); });
                  }},
                 {"loses", [&](auto& node) { Read(node, attempt.loses); }},
                 {"mode",
                  [&](auto& node) {
                    std::string mode;
                    Choose(node, mode, {"lazy", "synchronous"});
                    attempt.mode = mode == "lazy" ? SaveMode::kLazy : SaveMode::kSynchronous;
                  }},
                 {"keep_last", [&](auto& node) { Read(node, attempt.keep_last); }},
                 {"in_flight", [&](auto& node) { Read(node, attempt.in_flight); }},
                 {"vote_timeout_ms", [&](auto& node) { Read(node, attempt.vote_timeout_ms); }},
                 {"pool_mib", [&](auto& node) { Read(node, attempt.pool_mib); }},
                 {"message_delay_ms", [&](auto& node) { Read(node, attempt.message_delay_ms); }},
                 {"permitted", [&](auto& node) { Read(node, attempt.permitted); }},
                 {"may_not_start", [&](auto& node) { Read(node, attempt.may_not_start); }},
                 {"fault",
                  [&](auto& node) {
                    Read(node, attempt.faults, [&](auto& t, auto& fault) { ReadFault(t, fault); });
                  }},
                 {"damage", [&](auto& node) {
                    Read(node, attempt.damages,
                         [&](auto& t, auto& damage) { ReadDamage(t, damage); });
                  }}});
  }
  void ReadAll(const toml::table& table, Scenario& scenario) {
    Read(table, {{"about", [&](auto& node) { Read(node, scenario.about); }},
                 {"disk",
                  [&](auto& node) {
                    std::string disk;
                    Choose(node, disk, {"simulated", "real"});
                    scenario.real_disk = disk == "real";
                  }},
                 {"scale", [&](auto& node) { Read(node, scenario.scale); }},
                 {"seeds", [&](auto& node) { Read(node, scenario.seeds); }},
                 {"probes", [&](auto& node) { Read(node, scenario.probes); }},
                 {"attempt", [&](auto& node) {
                    Read(node, scenario.attempts,
                         [&](auto& t, auto& attempt) { ReadAttempt(t, attempt); });
                  }}});
    if (scenario.attempts.size() < 2) Fail(table, "a scenario has an attempt, and one after it");
    if (!scenario.attempts.empty() && !scenario.attempts.back().faults.empty()) {
      Fail(table, "nothing goes wrong in the last attempt");
    }
    if (scenario.probes.empty()) Fail(table, "a scenario names the probes that it must hit");
    if (scenario.seeds < 1) Fail(table, "a scenario has a seed");
  }

  const std::string& failure() const { return failure_; }

 private:
  void Fail(const toml::node& node, const std::string& what) {
    if (failure_.empty()) failure_ = absl::StrCat("line ", node.source().begin.line, ": ", what);
  }
  std::string failure_;
};

}  // namespace

absl::StatusOr<Scenario> ReadScenario(const std::string& path) {
  Scenario scenario;
  scenario.name = std::filesystem::path(path).stem().string();
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    std::ostringstream text;
    text << error;
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", text.str()));
  }
  Reader reader;
  reader.ReadAll(table, scenario);
  if (!reader.failure().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", reader.failure()));
  }
  return scenario;
}

}  // namespace longspan
