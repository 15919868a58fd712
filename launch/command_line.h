// The command line: commands, their options, --help. A narrow face of CLI11, whose headers cost
// every file that includes them four seconds of compilation: command_line.cc alone does.
#ifndef LONGSPAN_LAUNCH_COMMAND_LINE_H_
#define LONGSPAN_LAUNCH_COMMAND_LINE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace longspan {

// A handle to an option, or to an argument that goes by its place; valid as long as the
// CommandLine. The functions without another result return the handle, so that calls chain. Values
// that break a rule given here are wrong use: CommandLine::Parse says so.
class CommandOption {
 public:
  explicit CommandOption(CLI::Option* option) : option_(option) {}

  CommandOption Required() const;
  CommandOption Positive() const;
  CommandOption NonNegative() const;
  CommandOption InRange(int least, int most) const;
  CommandOption OneOf(std::vector<std::string> values) const;
  CommandOption Needs(const std::string& other) const;  // the name of an option added before
  CommandOption Excludes(const CommandOption& other) const;
  CommandOption Size() const;            // a number that may end in K, M or G, of 1024
  CommandOption Repeatable() const;      // of a vector: every value of every use counts
  CommandOption CommaSeparated() const;  // of a vector: one word holds all values

  // What --help says: the value that the variable has now; a name for the value; a heading.
  CommandOption ShowDefault() const;
  CommandOption ValueName(const std::string& name) const;
  CommandOption Group(const std::string& heading) const;

  // After the parsing.
  bool given() const;
  std::string name() const;  // "--steps"

 private:
  CLI::Option* option_;
};

// A handle to a command; valid as long as the CommandLine. Variables that options are read into
// must outlive the parsing; those of options that are not given stay as they are.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  Command AddCommand(const std::string& name, const std::string& help) const;
  void RequireCommand() const;                          // one of those added
  void Footer(const std::string& text) const;           // ends --help
  void OnChosen(std::function<void()> callback) const;  // called by Parse, when all values are read

  // `name`: "--steps", "-o,--out", or "RUN" for an argument that goes by its place. T: std::string,
  // int, int64_t, uint64_t, double, or a vector of std::string, int or double.
  template <typename T>
  CommandOption AddOption(const std::string& name, T& value, const std::string& help) const;
  void AddFlag(const std::string& name, bool& value, const std::string& help) const;

 private:
  CLI::App* app_;
};

// The program's own command. Not thread-safe.
class CommandLine : public Command {
 public:
  CommandLine(const std::string& description, const std::string& program);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  void AddVersion(const std::string& text);  // what --version prints

  // Nothing: go on. Otherwise the exit status to end with at once: 0 after --help and --version, 2
  // for wrong use, which has been said on standard error.
  std::optional<int> Parse(int argc, const char* const* argv);

 private:
  explicit CommandLine(std::unique_ptr<CLI::App> app);

  std::unique_ptr<CLI::App> app_;
};

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_COMMAND_LINE_H_
