// The `longspan` command.
#include <cstdio>
#include <optional>
#include <string>

#include "launch/command_line.h"
#include "launch/commands.h"
#include "runtime/train/agreement.h"

namespace {

constexpr char kFooter[] =
    "Example:\n"
    "  longspan data build ~/src --out data/corpus.h5\n"
    "  mpirun -n 2 longspan train examples/01_quickstart/quickstart.toml\n"
    "  longspan generate runs/quickstart --prompt \"The \"";

}  // namespace

int main(int argc, char** argv) {
  longspan::CommandLine app("Longspan trains transformers on sequences too long for one device.",
                            "longspan");
  app.Footer(kFooter);
  app.RequireCommand();
  app.AddVersion("longspan " LONGSPAN_VERSION);
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
  if (const std::optional<int> ended = app.Parse(argc, argv)) return *ended;
  if (!selected) return 0;
  const absl::Status status = selected();
  if (status.ok()) return 0;
  // A command whose ranks have printed already returns an error without a text.
  if (!status.message().empty())
    std::fprintf(stderr, "longspan: %s\n", std::string(status.message()).c_str());
  return 1;
}
