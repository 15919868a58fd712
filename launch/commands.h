// The subcommands of `longspan`. Each Register call adds one to the command line; when the user
// chooses it, it stores what is to be run in *selected. Errors come back as a Status, and main
// prints them as one line.
#ifndef LONGSPAN_LAUNCH_COMMANDS_H_
#define LONGSPAN_LAUNCH_COMMANDS_H_

#include <functional>

#include "absl/status/status.h"
#include "launch/command_line.h"

namespace longspan {

using SelectedCommand = std::function<absl::Status()>;

void RegisterTrainCommand(const Command& root, SelectedCommand* selected, int* argc, char*** argv);
void RegisterDataCommand(const Command& root, SelectedCommand* selected);
void RegisterGenerateCommand(const Command& root, SelectedCommand* selected);
void RegisterCheckpointCommand(const Command& root, SelectedCommand* selected, int* argc,
                               char*** argv);
void RegisterScheduleCommand(const Command& root, SelectedCommand* selected);
void RegisterPlanCommand(const Command& root, SelectedCommand* selected);
void RegisterProfileCommand(const Command& root, SelectedCommand* selected, int* argc,
                            char*** argv);
void RegisterConfigCommand(const Command& root, SelectedCommand* selected);
void RegisterSimulateCommand(const Command& root, SelectedCommand* selected);
void RegisterDoctorCommand(const Command& root, SelectedCommand* selected, int* argc, char*** argv);
void RegisterTraceCommand(const Command& root, SelectedCommand* selected);

}  // namespace longspan

#endif  // LONGSPAN_LAUNCH_COMMANDS_H_
