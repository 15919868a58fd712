#include "launch/config.h"

#include <algorithm>
#include <fstream>
#include <functional>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "checkpoint/tiers.h"
#include "launch/config_values.h"
#include "optim/schedule.h"

namespace longspan {
namespace {

struct Key {
  std::string section, name, help;
  bool fixed = false;
  std::function<absl::Status(const toml::node&, RunConfig&)> parse;
  std::function<std::string(const RunConfig&)> format;
  std::string full() const { return section + "." + name; }
};

enum class OnResume { kMayChange, kFixed };

// What a number must satisfy, if anything.
using Rule = std::function<absl::Status(const RunConfig&)>;

Rule AtLeast(std::function<double(const RunConfig&)> get, double least) {
  return [get = std::move(get), least](const RunConfig& c) {
    return get(c) >= least ? absl::OkStatus()
                           : absl::InvalidArgumentError(absl::StrCat("must be at least ", least));
  };
}

size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

// A directory is wanted unless the tier is off.
Rule NotEmptyWith(std::function<std::string(const RunConfig&)> get,
                  std::function<bool(const RunConfig&)> off) {
  return [get = std::move(get), off = std::move(off)](const RunConfig& c) {
    return off(c) || !get(c).empty()
               ? absl::OkStatus()
               : absl::InvalidArgumentError("is needed: a directory that every node has");
  };
}
Rule IsErasure(std::function<std::string(const RunConfig&)> get) {
  return [get = std::move(get)](const RunConfig& c) {
    return get(c).empty() ? absl::OkStatus() : ParseErasure(get(c)).status();
  };
}
Rule OneOf(std::function<std::string(const RunConfig&)> get, std::vector<std::string> values) {
  return [get = std::move(get), values = std::move(values)](const RunConfig& c) {
    const std::string value = get(c);
    if (std::find(values.begin(), values.end(), value) != values.end()) return absl::OkStatus();
    const auto nearest = std::min_element(values.begin(), values.end(),
                                          [&](const std::string& a, const std::string& b) {
                                            return EditDistance(a, value) < EditDistance(b, value);
                                          });
    // Among a few, or when nothing is alike, a guess helps nobody.
    const bool alike = values.size() > 2 && 2 * EditDistance(*nearest, value) <= value.size() + 1;
    return absl::InvalidArgumentError(
        absl::StrCat("must be one of: ", absl::StrJoin(values, ", "),
                     alike ? absl::StrCat("; the nearest is \"", *nearest, "\"") : ""));
  };
}

// Of the parameters of schedule profiles.
absl::Status InRange(const RunConfig& c) { return Check(c.schedule.profile); }

template <typename Field>
Key MakeKey(const char* section, const char* name, Field field, OnResume resume, std::string help,
            Rule rule = nullptr) {
  Key key{section, name, std::move(help), resume == OnResume::kFixed, nullptr, nullptr};
  key.parse = [field, rule](const toml::node& node, RunConfig& config) {
    absl::Status status = Parse(node, &field(config));
    if (status.ok() && rule) status = rule(config);
    return status;
  };
  key.format = [field](const RunConfig& config) {
    return Format(field(const_cast<RunConfig&>(config)));
  };
  return key;
}

#define FIELD(member) \
  [](RunConfig & c) -> auto& { return c.member; }
#define VALUE(member) [](const RunConfig& c) { return c.member; }

const std::vector<Key>& Table() {
  using enum OnResume;
  static const auto* const table = new std::vector<Key>{
      MakeKey("run", "name", FIELD(run.name), kMayChange, "everything of the run goes to DIRECTORY/NAME"),
      MakeKey("run", "directory", FIELD(run.directory), kMayChange, "where run folders lie"),
      MakeKey("run", "seed", FIELD(run.seed), kFixed, "of initial weights and data order"),
      MakeKey("run", "steps", FIELD(run.steps), kMayChange, "optimizer updates; see schedule.on_budget_change", AtLeast(VALUE(run.steps), 1)),
      MakeKey("run", "device", FIELD(run.device), kMayChange,
              "\"auto\" (a GPU where one can be used), \"cpu\" or \"cuda\"",
              OneOf(VALUE(run.device), {"auto", "cpu", "cuda"})),
      MakeKey("run", "threads", FIELD(run.threads), kMayChange, "a rank; 0: cores of this node / ranks on it",
              AtLeast(VALUE(run.threads), 0)),
      MakeKey("run", "deterministic", FIELD(run.deterministic), kMayChange,
              "same bits in a repeated run; CPUs always do"),
      MakeKey("run", "on_nonfinite", FIELD(run.on_nonfinite), kMayChange,
              "a loss or gradient that is not finite: \"stop\", or \"skip\" the update",
              OneOf(VALUE(run.on_nonfinite), {"stop", "skip"})),
      MakeKey("run", "nccl_timeout", FIELD(run.nccl_timeout), kMayChange,
              "seconds for which GPUs wait for another rank in one exchange or sum before the run fails",
              AtLeast(VALUE(run.nccl_timeout), 1)),

      MakeKey("data", "sources", FIELD(data.sources), kMayChange,
              "token data sets: [{ path = \"data/corpus.h5\", weight = 1.0 }]"),
      MakeKey("data", "validation", FIELD(data.validation), kMayChange,
              "share of documents, chosen by a hash with the seed; or the path of a data set"),
      MakeKey("data", "max_length", FIELD(data.max_length), kFixed, "tokens; longer documents are cut into pieces",
              AtLeast(VALUE(data.max_length), 1)),
      MakeKey("data", "long_documents", FIELD(data.long_documents), kFixed, "\"cut\" or \"drop\"",
              OneOf(VALUE(data.long_documents), {"cut", "drop"})),

      MakeKey("model", "family", FIELD(model.family), kFixed, "\"llama\" or \"gpt2\"",
              OneOf(VALUE(model.family), {"llama", "gpt2"})),
      MakeKey("model", "layers", FIELD(model.layers), kFixed, "", AtLeast(VALUE(model.layers), 1)),
      MakeKey("model", "width", FIELD(model.width), kFixed, "of the residual stream", AtLeast(VALUE(model.width), 1)),
      MakeKey("model", "heads", FIELD(model.heads), kFixed, "query heads", AtLeast(VALUE(model.heads), 1)),
      MakeKey("model", "kv_heads", FIELD(model.kv_heads), kFixed, "key and value heads; a divisor of heads",
              AtLeast(VALUE(model.kv_heads), 1)),
      MakeKey("model", "ffn", FIELD(model.ffn), kFixed, "inner width of the feed-forward part", AtLeast(VALUE(model.ffn), 1)),
      MakeKey("model", "vocab", FIELD(model.vocab), kFixed, "0: from the data", AtLeast(VALUE(model.vocab), 0)),
      MakeKey("model", "rope_base", FIELD(model.rope_base), kFixed, "base of the rotary frequencies",
              AtLeast(VALUE(model.rope_base), 1)),
      MakeKey("model", "tie_embeddings", FIELD(model.tie_embeddings), kFixed, "output head = embedding"),
      MakeKey("model", "init", FIELD(model.init), kMayChange,
              "\"random\"; or a Hugging Face directory: config.json and safetensors"),

      MakeKey("batch", "tokens", FIELD(batch.tokens), kFixed, "targets an update, over all ranks",
              AtLeast(VALUE(batch.tokens), 1)),
      MakeKey("batch", "micro_batch_tokens", FIELD(batch.micro_batch_tokens), kMayChange,
              "what one rank holds at a time; even",
              [](const RunConfig& c) {
                const int64_t tokens = c.batch.micro_batch_tokens;
                return tokens >= 2 && tokens % 2 == 0 ? absl::OkStatus()
                                                      : absl::InvalidArgumentError("must be even and at least 2");
              }),

      MakeKey("optimizer", "kind", FIELD(optimizer.kind), kFixed, "\"adamw\" or \"sgd\"",
              OneOf(VALUE(optimizer.kind), {"adamw", "sgd"})),
      MakeKey("optimizer", "betas", FIELD(optimizer.betas), kMayChange, "decay of adamw's moments",
              [](const RunConfig& c) {
                for (double beta : c.optimizer.betas) {
                  if (beta < 0 || beta >= 1) return absl::InvalidArgumentError("must lie in [0, 1)");
                }
                return absl::OkStatus();
              }),
      MakeKey("optimizer", "eps", FIELD(optimizer.eps), kMayChange, "", AtLeast(VALUE(optimizer.eps), 0)),
      MakeKey("optimizer", "momentum", FIELD(optimizer.momentum), kMayChange, "of sgd",
              AtLeast(VALUE(optimizer.momentum), 0)),
      MakeKey("optimizer", "weight_decay", FIELD(optimizer.weight_decay), kMayChange,
              "of tensors with two or more dimensions", AtLeast(VALUE(optimizer.weight_decay), 0)),
      MakeKey("optimizer", "clip", FIELD(optimizer.clip), kMayChange, "largest gradient norm; 0: no clipping",
              AtLeast(VALUE(optimizer.clip), 0)),
      MakeKey("optimizer", "wire", FIELD(optimizer.wire), kMayChange,
              "gradients between ranks travel as \"f32\" or, in half the bytes and rounded, \"bf16\"",
              OneOf(VALUE(optimizer.wire), {"f32", "bf16"})),

      MakeKey("schedule", "kind", FIELD(schedule.kind), kMayChange,
              absl::StrJoin(Schedule::Kinds(), ", "),
              OneOf(VALUE(schedule.kind), Schedule::Kinds())),
      MakeKey("schedule", "peak", FIELD(schedule.peak), kMayChange, "largest learning rate",
              AtLeast(VALUE(schedule.peak), 0)),
      MakeKey("schedule", "warmup", FIELD(schedule.warmup), kMayChange, "share of steps below 1, or a number of steps",
              AtLeast(VALUE(schedule.warmup), 0)),
      MakeKey("schedule", "floor", FIELD(schedule.floor), kMayChange, "lowest rate, as a share of the peak",
              [](const RunConfig& c) {
                return c.schedule.floor >= 0 && c.schedule.floor <= 1 ? absl::OkStatus()
                                                                      : absl::InvalidArgumentError("must lie in [0, 1]");
              }),
      MakeKey("schedule", "sampling", FIELD(schedule.sampling), kMayChange,
              "refresh the rate every n updates, every \"5%\", or at [0.5, 0.75] of the run; held in between",
              [](const RunConfig& c) { return Check(c.schedule.sampling); }),
      MakeKey("schedule", "rex_b", FIELD(schedule.profile.rex_b), kMayChange, "rex: z / ((1-b) + b z)", InRange),
      MakeKey("schedule", "cooldown", FIELD(schedule.profile.cooldown), kMayChange,
              "wsd: share of the steps over which the rate falls", InRange),
      MakeKey("schedule", "cooldown_shape", FIELD(schedule.profile.cooldown_shape), kMayChange,
              "wsd: \"linear\", or \"sqrt\" for 1 - sqrt(u)", InRange),
      MakeKey("schedule", "power", FIELD(schedule.profile.power), kMayChange, "polynomial: z^power", InRange),
      MakeKey("schedule", "decay", FIELD(schedule.profile.decay), kMayChange, "exponential: exp(-decay (1-z))", InRange),
      MakeKey("schedule", "milestones", FIELD(schedule.profile.milestones), kMayChange,
              "step: shares of the steps at which the rate falls", InRange),
      MakeKey("schedule", "milestone_factor", FIELD(schedule.profile.milestone_factor), kMayChange,
              "step: what each milestone multiplies the rate by", InRange),
      MakeKey("schedule", "file", FIELD(schedule.file), kMayChange, "table: a text file of rates, one a line"),
      MakeKey("schedule", "from", FIELD(schedule.from), kMayChange, "refined: the folder of an earlier run of this job"),
      MakeKey("schedule", "norm", FIELD(schedule.norm), kMayChange,
              "refined: \"l1\", \"l2\"; \"auto\" takes l1 for adamw and l2 for sgd",
              OneOf(VALUE(schedule.norm), {"auto", "l1", "l2"})),
      MakeKey("schedule", "filter", FIELD(schedule.filter), kMayChange,
              "refined: width of the median filter, as a share of the run", AtLeast(VALUE(schedule.filter), 0)),
      MakeKey("schedule", "blend", FIELD(schedule.blend), kMayChange, "refined: refined^blend * linear^(1-blend)",
              AtLeast(VALUE(schedule.blend), 0)),
      MakeKey("schedule", "on_budget_change", FIELD(schedule.on_budget_change), kMayChange,
              "a resume with other run.steps: \"refuse\", \"retime\", \"rescale\", \"hold\", \"finish\"",
              OneOf(VALUE(schedule.on_budget_change), {"refuse", "retime", "rescale", "hold", "finish"})),

      MakeKey("attention", "window", FIELD(attention.window), kFixed,
              "tokens that a query sees, its own included; 0: all before it", AtLeast(VALUE(attention.window), 0)),
      MakeKey("attention", "wire", FIELD(attention.wire), kMayChange,
              "keys and values between ranks travel as \"f32\" or, in half the bytes and rounded, \"bf16\"",
              OneOf(VALUE(attention.wire), {"f32", "bf16"})),
      MakeKey("attention", "head_parallel", FIELD(attention.head_parallel), kMayChange,
              "\"auto\": ranks of a node split heads where rings limit; or by how many at most, 1: never"),

      MakeKey("planner", "policy", FIELD(planner.policy), kMayChange,
              "\"skyline\", \"bytescale\", \"naive\" or \"static\": how sequences are given to ranks",
              OneOf(VALUE(planner.policy), {"skyline", "bytescale", "naive", "static"})),
      MakeKey("planner", "cost", FIELD(planner.cost), kMayChange,
              "\"fixed\": from the model's operations; a file from `longspan profile`; \"refit\": measured as it runs"),
      MakeKey("planner", "ranks_per_node", FIELD(planner.ranks_per_node), kMayChange, "0: from MPI",
              AtLeast(VALUE(planner.ranks_per_node), 0)),

      MakeKey("checkpoint", "interval", FIELD(checkpoint.interval), kMayChange,
              "updates; a time such as \"30s\"; or \"auto\": from what a save costs and mtbf",
              [](const RunConfig& c) {
                return c.checkpoint.interval.off() ? absl::InvalidArgumentError("must be at least 1") : absl::OkStatus();
              }),
      MakeKey("checkpoint", "keep_last", FIELD(checkpoint.keep_last), kMayChange, "newest checkpoints kept",
              AtLeast(VALUE(checkpoint.keep_last), 1)),
      MakeKey("checkpoint", "keep_every", FIELD(checkpoint.keep_every), kMayChange,
              "steps that are multiples of this are kept for good; 0: none", AtLeast(VALUE(checkpoint.keep_every), 0)),
      MakeKey("checkpoint", "mode", FIELD(checkpoint.mode), kMayChange,
              "\"lazy\": in the background; \"synchronous\": training waits",
              OneOf(VALUE(checkpoint.mode), {"lazy", "synchronous"})),
      MakeKey("checkpoint", "when_busy", FIELD(checkpoint.when_busy), kMayChange,
              "a save that would exceed in_flight: \"wait\", or \"skip\" it",
              OneOf(VALUE(checkpoint.when_busy), {"wait", "skip"})),
      MakeKey("checkpoint", "in_flight", FIELD(checkpoint.in_flight), kMayChange, "saves under way at a time",
              AtLeast(VALUE(checkpoint.in_flight), 1)),
      MakeKey("checkpoint", "pool", FIELD(checkpoint.pool), kMayChange,
              "MiB of host memory a rank for saves under way; 0: one save, at most 1/8 of the memory",
              AtLeast(VALUE(checkpoint.pool), 0)),
      MakeKey("checkpoint", "timeout", FIELD(checkpoint.timeout), kMayChange,
              "seconds that a save waits for other ranks before it fails", AtLeast(VALUE(checkpoint.timeout), 1)),
      MakeKey("checkpoint", "max_failures", FIELD(checkpoint.max_failures), kMayChange,
              "saves failed in a row that end the run; 0: any number may fail",
              AtLeast(VALUE(checkpoint.max_failures), 0)),
      MakeKey("checkpoint", "mtbf", FIELD(checkpoint.mtbf), kMayChange,
              "hours between failures of one node, for interval \"auto\"", AtLeast(VALUE(checkpoint.mtbf), 0.001)),
      MakeKey("checkpoint", "storage", FIELD(checkpoint.storage), kMayChange,
              "\"auto\", \"io_uring\" or \"threads\": how bytes get to the disk",
              OneOf(VALUE(checkpoint.storage), {"auto", "io_uring", "threads"})),
      MakeKey("checkpoint", "memory_interval", FIELD(checkpoint.memory.interval), kMayChange,
              "saves to host memory that outlives the process: as interval; 0: none"),
      MakeKey("checkpoint", "memory_directory", FIELD(checkpoint.memory.directory), kMayChange,
              "a tmpfs of every node", NotEmptyWith(VALUE(checkpoint.memory.directory), VALUE(checkpoint.memory.interval.off()))),
      MakeKey("checkpoint", "memory_keep", FIELD(checkpoint.memory.keep), kMayChange, "newest saves kept in memory",
              AtLeast(VALUE(checkpoint.memory.keep), 1)),
      MakeKey("checkpoint", "memory_keep_every", FIELD(checkpoint.memory.keep_every), kMayChange,
              "in memory, steps that are multiples of this stay until the run ends; 0: none",
              AtLeast(VALUE(checkpoint.memory.keep_every), 0)),
      MakeKey("checkpoint", "memory_partner", FIELD(checkpoint.memory.partner), kMayChange,
              "every save in memory is in another node's memory as well"),
      MakeKey("checkpoint", "memory_erasure", FIELD(checkpoint.memory.erasure), kMayChange,
              "parity instead: \"4+1\": of 5 nodes any 1 may be lost, for 1/4 more memory; \"\": none",
              IsErasure(VALUE(checkpoint.memory.erasure))),
      MakeKey("checkpoint", "local_interval", FIELD(checkpoint.local.interval), kMayChange,
              "saves to a disk of every node: as interval; 0: none"),
      MakeKey("checkpoint", "local_directory", FIELD(checkpoint.local.directory), kMayChange,
              "on a disk of every node, such as \"/scratch\"",
              NotEmptyWith(VALUE(checkpoint.local.directory), VALUE(checkpoint.local.interval.off()))),
      MakeKey("checkpoint", "local_keep", FIELD(checkpoint.local.keep), kMayChange, "newest saves kept on a node's disk",
              AtLeast(VALUE(checkpoint.local.keep), 1)),
      MakeKey("checkpoint", "local_keep_every", FIELD(checkpoint.local.keep_every), kMayChange,
              "on a node's disk, steps that are multiples of this stay until the run ends; 0: none",
              AtLeast(VALUE(checkpoint.local.keep_every), 0)),
      MakeKey("checkpoint", "local_partner", FIELD(checkpoint.local.partner), kMayChange,
              "every save on a node's disk is on another node's as well"),
      MakeKey("checkpoint", "local_erasure", FIELD(checkpoint.local.erasure), kMayChange,
              "parity instead: as memory_erasure",
              IsErasure(VALUE(checkpoint.local.erasure))),

      MakeKey("metrics", "every", FIELD(metrics.every), kMayChange, "steps between two lines",
              AtLeast(VALUE(metrics.every), 1)),
      MakeKey("metrics", "evaluate_every", FIELD(metrics.evaluate_every), kMayChange,
              "steps between two evaluations; 0: only at the end", AtLeast(VALUE(metrics.evaluate_every), 0)),
      MakeKey("metrics", "evaluate_tokens", FIELD(metrics.evaluate_tokens), kMayChange,
              "validation targets of one evaluation at most", AtLeast(VALUE(metrics.evaluate_tokens), 1)),
  };
  return *table;
}

#undef FIELD
#undef VALUE

const Key* FindKey(const std::string& full) {
  for (const Key& key : Table()) {
    if (key.full() == full) return &key;
  }
  return nullptr;
}

absl::Status UnknownKey(const std::string& full, const std::string& where) {
  const Key* nearest = nullptr;
  size_t least = 0;
  for (const Key& key : Table()) {
    // The right name in a wrong section is the likeliest slip, then a mistyped name.
    const size_t name_at = full.rfind('.');
    const std::string name = name_at == std::string::npos ? full : full.substr(name_at + 1);
    const size_t distance =
        std::min(EditDistance(full, key.full()), EditDistance(name, key.name) + 1);
    if (nearest == nullptr || distance < least) {
      nearest = &key;
      least = distance;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(where, ": unknown key \"", full,
                                                 "\"; the nearest known key is \"", nearest->full(),
                                                 "\" (longspan config defaults lists all)"));
}

std::string Place(const std::string& name, const toml::source_region& source) {
  return absl::StrCat(name, ":", source.begin.line);
}

absl::Status Apply(const std::string& full, const toml::node& node, const std::string& where,
                   LoadedConfig& config) {
  const Key* key = FindKey(full);
  if (key == nullptr) return UnknownKey(full, where);
  absl::Status status = key->parse(node, config.values);
  if (!status.ok()) {
    std::ostringstream given;
    node.visit([&](const auto& value) { given << value; });
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": ", full, " = ", given.str(), ": ", std::string(status.message())));
  }
  for (ConfigEntry& entry : config.entries) {
    if (entry.key == full) entry.origin = where;
  }
  return absl::OkStatus();
}

absl::Status ApplyTable(const toml::table& table, const std::string& name, LoadedConfig& config) {
  for (const auto& [section, node] : table) {
    const std::string section_name(section.str());
    const toml::table* keys = node.as_table();
    if (keys == nullptr) return UnknownKey(section_name, Place(name, node.source()));
    for (const auto& [key, value] : *keys) {
      absl::Status status = Apply(absl::StrCat(section_name, ".", std::string(key.str())), value,
                                  Place(name, value.source()), config);
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

// The library throws; nothing of ours does.
absl::StatusOr<toml::table> ParseToml(const std::string& text, const std::string& name) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(Place(name, error.source()), ": ", std::string(error.description())));
  }
}

absl::Status ApplySet(const std::string& set, LoadedConfig& config) {
  const size_t equals = set.find('=');
  if (equals == std::string::npos || equals == 0) {
    return absl::InvalidArgumentError(absl::StrCat("--set ", set, ": needs section.key=value"));
  }
  const std::string key = set.substr(0, equals), text = set.substr(equals + 1);
  const std::string where = "--set " + key;
  absl::StatusOr<toml::table> parsed = ParseToml("x = " + text, where);
  const bool is_toml = parsed.ok();
  absl::Status status = is_toml ? Apply(key, *parsed->get("x"), where, config) : parsed.status();
  if (status.ok()) return status;
  // A bare word is taken as text: --set run.name=first needs no quotes inside quotes.
  absl::StatusOr<toml::table> quoted = ParseToml("x = " + Format(text), where);
  if (!quoted.ok()) return status;
  const absl::Status as_text = Apply(key, *quoted->get("x"), where, config);
  // Of what is no TOML, the key's own message tells more.
  return as_text.ok() || !is_toml ? as_text : status;
}

}  // namespace

std::string LoadedConfig::ToToml() const {
  std::string text, section;
  for (const ConfigEntry& entry : entries) {
    const size_t dot = entry.key.find('.');
    if (const std::string here = entry.key.substr(0, dot); here != section) {
      absl::StrAppend(&text, section.empty() ? "" : "\n", "[", here, "]\n");
      section = here;
    }
    absl::StrAppend(&text, entry.key.substr(dot + 1), " = ", entry.value,
                    entry.origin == "default" ? "" : absl::StrCat("  # ", entry.origin), "\n");
  }
  return text;
}

absl::StatusOr<LoadedConfig> ParseConfig(const std::string& text, const std::string& name,
                                         const std::vector<std::string>& sets) {
  LoadedConfig config;
  for (const Key& key : Table()) config.entries.push_back({key.full(), "", "default", key.fixed});
  const absl::StatusOr<toml::table> parsed = ParseToml(text, name);
  if (!parsed.ok()) return parsed.status();
  if (absl::Status status = ApplyTable(*parsed, name, config); !status.ok()) return status;
  for (const std::string& set : sets) {
    if (absl::Status status = ApplySet(set, config); !status.ok()) return status;
  }
  for (size_t i = 0; i < config.entries.size(); ++i)
    config.entries[i].value = Table()[i].format(config.values);
  return config;
}

absl::StatusOr<LoadedConfig> LoadConfig(const std::string& path,
                                        const std::vector<std::string>& sets) {
  if (path.empty()) return ParseConfig("", "", sets);
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot read the configuration file"));
  return ParseConfig(text.str(), path, sets);
}

std::string DefaultConfigToml() {
  const RunConfig defaults;
  std::string text, section;
  for (const Key& key : Table()) {
    if (key.section != section) {
      absl::StrAppend(&text, section.empty() ? "" : "\n", "[", key.section, "]\n");
      section = key.section;
    }
    const std::string line = absl::StrCat(key.name, " = ", key.format(defaults));
    absl::StrAppend(&text, key.help.empty() ? line : absl::StrFormat("%-32s # %s", line, key.help),
                    "\n");
  }
  return text;
}

}  // namespace longspan
