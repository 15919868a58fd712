#include "launch/command_line.h"

#include <cstdint>
#include <utility>

#include "CLI/CLI.hpp"

namespace longspan {
namespace {

constexpr int kWrongUse = 2;  // exit status; 1: what was asked for failed

}  // namespace

CommandOption CommandOption::Required() const {
  option_->required();
  return *this;
}

CommandOption CommandOption::Positive() const {
  option_->check(CLI::PositiveNumber);
  return *this;
}

CommandOption CommandOption::NonNegative() const {
  option_->check(CLI::NonNegativeNumber);
  return *this;
}

CommandOption CommandOption::InRange(int least, int most) const {
  option_->check(CLI::Range(least, most));
  return *this;
}

CommandOption CommandOption::OneOf(std::vector<std::string> values) const {
  option_->check(CLI::IsMember(std::move(values)));
  return *this;
}

CommandOption CommandOption::Needs(const std::string& other) const {
  option_->needs(other);
  return *this;
}

CommandOption CommandOption::Excludes(const CommandOption& other) const {
  option_->excludes(other.option_);
  return *this;
}

CommandOption CommandOption::Size() const {
  option_->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  return *this;
}

CommandOption CommandOption::Repeatable() const {
  option_->take_all();
  return *this;
}

CommandOption CommandOption::CommaSeparated() const {
  option_->delimiter(',')->allow_extra_args(false);
  return *this;
}

CommandOption CommandOption::ShowDefault() const {
  option_->capture_default_str();
  return *this;
}

CommandOption CommandOption::ValueName(const std::string& name) const {
  option_->type_name(name);
  return *this;
}

CommandOption CommandOption::Group(const std::string& heading) const {
  option_->group(heading);
  return *this;
}

bool CommandOption::given() const { return option_->count() > 0; }

std::string CommandOption::name() const { return option_->get_name(); }

Command Command::AddCommand(const std::string& name, const std::string& help) const {
  return Command(app_->add_subcommand(name, help));
}

void Command::RequireCommand() const { app_->require_subcommand(1); }

void Command::Footer(const std::string& text) const { app_->footer(text); }

void Command::OnChosen(std::function<void()> callback) const {
  app_->callback(std::move(callback));
}

template <typename T>
CommandOption Command::AddOption(const std::string& name, T& value, const std::string& help) const {
  return CommandOption(app_->add_option(name, value, help));
}

template CommandOption Command::AddOption(const std::string&, std::string&,
                                          const std::string&) const;
template CommandOption Command::AddOption(const std::string&, int&, const std::string&) const;
template CommandOption Command::AddOption(const std::string&, int64_t&, const std::string&) const;
template CommandOption Command::AddOption(const std::string&, uint64_t&, const std::string&) const;
template CommandOption Command::AddOption(const std::string&, double&, const std::string&) const;
template CommandOption Command::AddOption(const std::string&, std::vector<std::string>&,
                                          const std::string&) const;
template CommandOption Command::AddOption(const std::string&, std::vector<int>&,
                                          const std::string&) const;
template CommandOption Command::AddOption(const std::string&, std::vector<double>&,
                                          const std::string&) const;

void Command::AddFlag(const std::string& name, bool& value, const std::string& help) const {
  app_->add_flag(name, value, help);
}

CommandLine::CommandLine(const std::string& description, const std::string& program)
    : CommandLine(std::make_unique<CLI::App>(description, program)) {}

CommandLine::CommandLine(std::unique_ptr<CLI::App> app)
    : Command(app.get()), app_(std::move(app)) {}

CommandLine::~CommandLine() = default;

void CommandLine::AddVersion(const std::string& text) { app_->set_version_flag("--version", text); }

std::optional<int> CommandLine::Parse(int argc, const char* const* argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app_->exit(error) == 0 ? 0 : kWrongUse;
  }
  return std::nullopt;
}

}  // namespace longspan
