#include "runtime/trace/trace_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace longspan {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr int kFirstTransferRow = 1000;  // tids from here on, one for each that overlaps others

absl::Status FileError(const std::string& path, int error) {
  return absl::UnavailableError(
      absl::StrCat("cannot write the trace ", path, ": ", std::strerror(error)));
}

OrderedJson Metadata(const char* what, int pid, int tid, OrderedJson args) {
  OrderedJson event = {{"ph", "M"}, {"name", what}, {"pid", pid}};
  if (tid >= 0) event["tid"] = tid;
  event["args"] = std::move(args);
  return event;
}

OrderedJson EventJson(const RankTimeline& timeline, const RankTimeline::Span& span, int tid,
                      int64_t zero_ns) {
  OrderedJson event = {{"ph", "X"},
                       {"name", timeline.names[span.name]},
                       {"cat", Name(static_cast<TraceKind>(span.kind))},
                       {"pid", timeline.rank},
                       {"tid", tid},
                       {"ts", static_cast<double>(span.begin_ns - zero_ns) / 1000},
                       {"dur", static_cast<double>(span.end_ns - span.begin_ns) / 1000}};
  OrderedJson args = OrderedJson::object();
  const auto add = [&](const char* name, int64_t value) {
    if (value >= 0) args[name] = value;
  };
  add("step", span.step);
  add("micro_batch", span.micro_batch);
  add("layer", span.layer);
  add("ring_step", span.ring_step);
  add("to", span.to);
  add("from", span.from);
  add("sent_bytes", span.sent_bytes);
  add("received_bytes", span.received_bytes);
  if (!args.empty()) event["args"] = std::move(args);
  return event;
}

}  // namespace

RankTimeline RankTimeline::Of(int rank, TraceRecorder& recorder) {
  RankTimeline timeline;
  timeline.rank = rank;
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  timeline.host = host;
  timeline.rows = recorder.rows();
  timeline.dropped = recorder.dropped();
  std::map<std::string, int32_t> numbers;
  for (const TraceEvent& event : recorder.Take()) {
    const TraceLabel& label = event.label;
    const auto [name, is_new] =
        numbers.try_emplace(label.name, static_cast<int32_t>(timeline.names.size()));
    if (is_new) timeline.names.push_back(label.name);
    timeline.spans.push_back({name->second, static_cast<int32_t>(label.kind), event.row, label.step,
                              label.micro_batch, label.layer, label.ring_step, label.to, label.from,
                              label.sent_bytes, label.received_bytes, event.begin_ns,
                              event.end_ns});
  }
  return timeline;
}

std::string RankTimeline::Encode() const {
  const OrderedJson head = {{"rank", rank},   {"host", host},       {"rows", rows},
                            {"names", names}, {"dropped", dropped}, {"spans", spans.size()}};
  // A host's name may be no UTF-8.
  std::string bytes = head.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  bytes.push_back('\n');
  bytes.append(reinterpret_cast<const char*>(spans.data()), spans.size() * sizeof(Span));
  return bytes;
}

absl::StatusOr<RankTimeline> RankTimeline::Decode(const std::string& bytes) {
  const size_t line = bytes.find('\n');
  const OrderedJson head =
      OrderedJson::parse(bytes.substr(0, line), nullptr, /*allow_exceptions=*/false);
  RankTimeline timeline;
  if (line == std::string::npos || head.is_discarded() ||
      bytes.size() - line - 1 != head["spans"].get<size_t>() * sizeof(Span)) {
    return absl::InternalError("a rank's part of the trace is damaged");
  }
  timeline.rank = head["rank"];
  timeline.host = head["host"];
  timeline.rows = head["rows"].get<std::vector<std::string>>();
  timeline.names = head["names"].get<std::vector<std::string>>();
  timeline.dropped = head["dropped"];
  timeline.spans.resize(head["spans"].get<size_t>());
  if (!timeline.spans.empty()) {
    std::memcpy(timeline.spans.data(), bytes.data() + line + 1,
                timeline.spans.size() * sizeof(Span));
  }
  return timeline;
}

absl::StatusOr<std::unique_ptr<TraceFile>> TraceFile::Create(const std::string& path) {
  const std::filesystem::path directory = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!directory.empty()) std::filesystem::create_directories(directory, error);
  if (error) return FileError(path, error.value());
  if (std::filesystem::is_directory(path, error)) return FileError(path, EISDIR);
  std::FILE* file = std::fopen(absl::StrCat(path, ".partial").c_str(), "wb");
  if (file == nullptr) return FileError(path, errno);
  return std::unique_ptr<TraceFile>(new TraceFile(path, file));
}

TraceFile::TraceFile(std::string path, std::FILE* file)
    : path_(std::move(path)), partial_(absl::StrCat(path_, ".partial")), file_(file) {
  Line("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
  first_line_ = true;
}

TraceFile::~TraceFile() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  std::remove(partial_.c_str());
}

void TraceFile::Line(const std::string& text) {
  const std::string line = absl::StrCat(bytes_ == 0 ? "" : first_line_ ? "\n" : ",\n", text);
  first_line_ = false;
  bytes_ += static_cast<int64_t>(line.size());
  std::fwrite(line.data(), 1, line.size(), file_);  // Close looks at ferror
}

void TraceFile::Add(RankTimeline timeline, int64_t zero_ns) {
  const int pid = timeline.rank;
  ++ranks_;
  spans_ += static_cast<int64_t>(timeline.spans.size());
  dropped_ += timeline.dropped;
  Line(Metadata("process_name", pid, -1,
                {{"name", absl::StrCat("rank ", pid, " (", timeline.host, ")")}})
           .dump());
  Line(Metadata("process_sort_index", pid, -1, {{"sort_index", pid}}).dump());
  const auto name_row = [&](int tid, const std::string& name, int place) {
    Line(Metadata("thread_name", pid, tid, {{"name", name}}).dump());
    Line(Metadata("thread_sort_index", pid, tid, {{"sort_index", place}}).dump());
  };
  // The streams stand between the host and the transfers that they wait for.
  for (size_t row = 0; row < timeline.rows.size(); ++row) {
    const int tid = static_cast<int>(row);
    if (tid == TraceRecorder::kTransferRow) continue;
    name_row(tid, timeline.rows[row],
             tid == TraceRecorder::kPlannerRow ? 2 * kFirstTransferRow : tid);
  }
  // Outer spans before inner ones that begin with them.
  std::sort(timeline.spans.begin(), timeline.spans.end(),
            [](const RankTimeline::Span& a, const RankTimeline::Span& b) {
              return a.begin_ns != b.begin_ns ? a.begin_ns < b.begin_ns : a.end_ns > b.end_ns;
            });
  std::vector<int64_t> transfer_ends;  // of each transfer row, so far
  for (const RankTimeline::Span& span : timeline.spans) {
    int tid = span.row;
    if (span.row == TraceRecorder::kTransferRow) {
      const auto free = std::find_if(transfer_ends.begin(), transfer_ends.end(),
                                     [&](int64_t end) { return end <= span.begin_ns; });
      tid = kFirstTransferRow + static_cast<int>(free - transfer_ends.begin());
      if (free == transfer_ends.end()) {
        name_row(tid, timeline.rows[span.row], tid);
        transfer_ends.push_back(span.end_ns);
      } else {
        *free = span.end_ns;
      }
    }
    Line(EventJson(timeline, span, tid, zero_ns).dump());
  }
}

absl::StatusOr<int64_t> TraceFile::Close(int64_t first_step, int64_t last_step) {
  const OrderedJson other = {
      {"format", "longspan-trace"}, {"version", 1},           {"ranks", ranks_},
      {"first_step", first_step},   {"last_step", last_step}, {"dropped_events", dropped_}};
  first_line_ = true;
  Line(absl::StrCat("],\"otherData\":", other.dump(), "}\n"));
  const bool failed = std::ferror(file_) != 0;
  errno = 0;
  const bool closed = std::fclose(std::exchange(file_, nullptr)) == 0;
  if (failed || !closed || std::rename(partial_.c_str(), path_.c_str()) != 0) {
    const int error = errno != 0 ? errno : EIO;
    std::remove(partial_.c_str());
    return FileError(path_, error);
  }
  return bytes_;
}

}  // namespace longspan
