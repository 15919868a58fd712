// Which checkpoints stay. Called after a newer one is committed, by rank 0 alone.
#ifndef LONGSPAN_CHECKPOINT_RETENTION_H_
#define LONGSPAN_CHECKPOINT_RETENTION_H_

#include <functional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/file_system.h"
#include "checkpoint/step_directory.h"

namespace longspan {

using UnderWay = std::function<bool(const std::string& directory)>;

// Deletes, of committed steps, all but the newest `options.keep_last` and, of each multiple of
// `options.keep_every`, the newest generation; and unfinished saves of this generation and older
// ones. The files of one that was committed are kept as spare ones (spare_files.h). `newest` has
// just been committed: nothing is deleted unless it reads back whole (manifest and commit record).
// A directory with a commit record that does not read back is kept, for somebody to look at, and
// does not count. `under_way` tells of the path of a step directory whether this attempt is still
// writing it, from before it was made: such a one stays. Returns what could not be done, one line
// each; nothing here fails a save.
std::vector<std::string> ApplyRetention(FileSystem& files, const CheckpointOptions& options,
                                        const StepName& newest,
                                        const UnderWay& under_way = nullptr);

// The same for a node's directory, which holds some of the files of a step, by one rank of the
// node. Others of the node may be ahead: unfinished saves that are not older than `newest` stay.
std::vector<std::string> ApplyNodeRetention(FileSystem& files, const CheckpointOptions& options,
                                            const StepName& newest);

}  // namespace longspan

#endif  // LONGSPAN_CHECKPOINT_RETENTION_H_
