#include "runtime/train/run_description.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "runtime/metrics/peak.h"
#include "runtime/train/agreement.h"
#include "runtime/train/failure.h"

namespace longspan {

absl::StatusOr<double> MeasurePeakOfAllRanks(Transport& transport, Stream& stream) {
  if (absl::Status status = transport.Barrier(); !status.ok()) return status;
  absl::StatusOr<double> peak = MeasurePeak(stream);
  const absl::Status mine = FailureAt("set-up", stream.device(), peak.status());
  if (absl::Status status = Agree(transport, mine); !status.ok()) return status;
  absl::StatusOr<std::vector<std::string>> all =
      transport.AllGatherBytes(std::string(reinterpret_cast<const char*>(&*peak), sizeof(double)));
  if (!all.ok()) return all.status();
  double sum = 0;
  for (const std::string& bytes : *all) {
    double flops = 0;
    bytes.copy(reinterpret_cast<char*>(&flops), sizeof(double));
    sum += flops;
  }
  return sum;
}

void DescribeRun(RunLog& log, const RunFolder& folder, const ModelConfig& model, int64_t parameters,
                 const Dataset& dataset, const Transport& transport, Device& device,
                 double peak_flops, const Schedule& schedule) {
  log.Info(absl::StrFormat("%s: %s of %s parameters (%d layers, width %d, %d heads, vocabulary %d)",
                           folder.path, Name(model.family),
                           ShortCount(static_cast<double>(parameters)), model.layers, model.width,
                           model.heads, model.vocab));
  log.Info(absl::StrFormat(
      "data: %s sequences, %s targets an epoch, longest %d tokens, %d validation sequences",
      ShortCount(static_cast<double>(dataset.sequences())),
      ShortCount(static_cast<double>(dataset.training_tokens())), dataset.longest_sequence(),
      dataset.validation().size()));
  log.Info(absl::StrFormat("%d %s over %s, each %s; measured peak %.1f GFLOP/s", transport.size(),
                           transport.size() == 1 ? "rank" : "ranks", transport.name(),
                           device.description(), peak_flops * 1e-9));
  std::vector<std::string> memory;
  for (const MemoryTable::Row& row : device.memory().Rows()) {
    if (row.current_bytes > 0)
      memory.push_back(
          absl::StrCat(row.tag, " ", ShortBytes(static_cast<double>(row.current_bytes))));
  }
  log.Info(absl::StrCat("memory a rank: ", absl::StrJoin(memory, ", ")));
  if (!schedule.config().note.empty())
    log.Info(absl::StrCat("schedule: ", schedule.config().kind, ", ", schedule.config().note));
}

}  // namespace longspan
