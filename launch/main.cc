// The `longspan` command.
#include <cstdio>
#include <string>

#include "CLI/CLI.hpp"
#include "launch/commands.h"
#include "runtime/train/agreement.h"

namespace {

constexpr int kWrongUse = 2;  // exit status; 1: what was asked for failed

constexpr char kFooter[] =
    "Example:\n"
    "  longspan data build ~/src --out data/corpus.h5\n"
    "  mpirun -n 2 longspan train examples/01_quickstart/quickstart.toml\n"
    "  longspan generate runs/quickstart --prompt \"The \"";

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Longspan trains transformers on sequences too long for one device.", "longspan"};
  app.footer(kFooter);
  app.require_subcommand(1);
  app.set_version_flag("--version", "longspan " LONGSPAN_VERSION);
  longspan::SelectedCommand selected;
  longspan::RegisterTrainCommand(app, &selected, &argc, &argv);
  longspan::RegisterDataCommand(app, &selected);
  longspan::RegisterGenerateCommand(app, &selected);
  longspan::RegisterCheckpointCommand(app, &selected, &argc, &argv);
  longspan::RegisterScheduleCommand(app, &selected);
  longspan::RegisterPlanCommand(app, &selected);
  longspan::RegisterProfileCommand(app, &selected, &argc, &argv);
  longspan::RegisterConfigCommand(app, &selected);
  longspan::RegisterSimulateCommand(app, &selected);
  longspan::RegisterTraceCommand(app, &selected);
  longspan::RegisterDoctorCommand(app, &selected, &argc, &argv);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kWrongUse;
  }
  if (!selected) return 0;
  const absl::Status status = selected();
  if (status.ok()) return 0;
  // A command whose ranks have printed already returns an error without a text.
  if (!status.message().empty())
    std::fprintf(stderr, "longspan: %s\n", std::string(status.message()).c_str());
  return 1;
}
