// The subcommands of `longspan`. Each Register call adds one to the command line; when the user
// chooses it, it stores what is to be run in *selected. Errors come back as a Status, and main
// prints them as one line.
#ifndef LONGSPAN_LAUNCH_COMMANDS_H_
#define LONGSPAN_LAUNCH_COMMANDS_H_

#include <functional>

#include "absl/status/status.h"

namespace CLI {
class App;
}

namespace longspan {

using SelectedCommand = std::function<absl::Status()>;

void RegisterTrainCommand(CLI::App& root, SelectedCommand* selected, int* argc, char*** argv);
void RegisterDataCommand(CLI::App& root, SelectedCommand* selected);
void RegisterGenerateCommand(CLI::App& root, SelectedCommand* selected);
void RegisterCheckpointCommand(CLI::App& root, SelectedCommand* selected, int* argc, char*** argv);
void RegisterScheduleCommand(CLI::App& root, SelectedCommand* selected);
void RegisterPlanCommand(CLI::App& root, SelectedCommand* selected);
void RegisterProfileCommand(CLI::App& root, SelectedCommand* selected, int* argc, char*** argv);
void RegisterConfigCommand(CLI::App& root, SelectedCommand* selected);
void RegisterSimulateCommand(CLI::App& root, SelectedCommand* selected);
void RegisterDoctorCommand(CLI::App& root, SelectedCommand* selected, int* argc, char*** argv);
void RegisterTraceCommand(CLI::App& root, SelectedCommand* selected);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_COMMANDS_H_
