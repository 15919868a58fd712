// `longspan data build` and `longspan data inspect`.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/command_line.h"
#include "launch/commands.h"
#include "nlohmann/json.hpp"
#include "runtime/data/build.h"
#include "runtime/data/length_summary.h"
#include "runtime/data/token_file.h"
#include "runtime/data/tokenizer.h"

namespace longspan {
namespace {

constexpr char kBuildFooter[] =
    "Examples:\n"
    "  longspan data build ~/src --extensions .c,.h --out data/code.h5\n"
    "  longspan data build books/ wiki.jsonl --field body --train-vocab 8192 --out data/mix.h5\n"
    "  longspan data build more.txt --tokenizer data/mix.h5 --out data/more.h5\n\n"
    "Directories are read recursively, sorted by name; hidden and binary files are left out. Each\n"
    "file is a document, or each line of a .jsonl file. An existing output is replaced once the\n"
    "new one is complete.";
constexpr char kInspectFooter[] =
    "Examples:\n"
    "  longspan data inspect data/code.h5\n"
    "  longspan data inspect data/code.h5 --documents 3\n"
    "  longspan data inspect megatron/corpus_text_document.bin --json";

std::string Bytes(int64_t bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  return unit == 0 ? absl::StrCat(bytes, " B") : absl::StrFormat("%.1f %s", value, units[unit]);
}

std::string Count(int64_t count, const std::string& noun) {
  return absl::StrCat(count, " ", noun, count == 1 ? "" : "s");
}

// Progress on standard error: one live line on a terminal, else a line every ten seconds.
class ProgressPrinter {
 public:
  ProgressPrinter() : terminal_(::isatty(STDERR_FILENO) != 0) {}
  ~ProgressPrinter() { Clear(); }

  void Show(const BuildProgress& progress) {
    const auto now = std::chrono::steady_clock::now();
    const bool new_phase = phase_ != progress.phase;
    if (new_phase) {
      phase_ = progress.phase;
      phase_start_ = now;
    }
    const double since_shown = std::chrono::duration<double>(now - shown_).count();
    if (since_shown < (terminal_ ? 0.1 : 10.0) && !(terminal_ && new_phase)) return;
    shown_ = now;
    const double seconds = std::chrono::duration<double>(now - phase_start_).count();
    const std::string line = Line(progress, seconds);
    if (terminal_) {
      std::fprintf(stderr, "\r\x1b[K%s", line.c_str());
      std::fflush(stderr);
      live_ = true;
    } else {
      std::fprintf(stderr, "%s\n", line.c_str());
    }
  }

  void Clear() {
    if (std::exchange(live_, false)) std::fputs("\r\x1b[K", stderr);
  }

 private:
  static std::string Line(const BuildProgress& progress, double seconds) {
    std::string line = absl::StrFormat("%-8s", progress.phase);
    if (progress.total <= 0) return absl::StrCat(line, " (no measure of progress)");
    const double share =
        std::min(1.0, static_cast<double>(progress.done) / static_cast<double>(progress.total));
    constexpr int kWidth = 24;
    const int full = static_cast<int>(share * kWidth);
    absl::StrAppend(&line, " [", std::string(full, '='), std::string(kWidth - full, ' '), "] ",
                    absl::StrFormat("%3.0f%%", 100 * share), "  ", Bytes(progress.done), " of ",
                    Bytes(progress.total), "  ", Count(progress.documents, "document"));
    if (share > 0 && seconds > 2) {
      absl::StrAppend(&line, absl::StrFormat("  %.0f s left", seconds / share - seconds));
    }
    return line;
  }

  bool terminal_, live_ = false;
  std::string phase_;
  std::chrono::steady_clock::time_point shown_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point phase_start_ = shown_;
};

struct BuildArguments {
  BuildOptions options;
  double train_sample_mib = 10;
  std::string split = "file";  // or "line", "paragraph"
  bool json = false;
};

absl::Status Build(BuildArguments arguments) {
  BuildOptions& options = arguments.options;
  options.train_sample_bytes = static_cast<int64_t>(arguments.train_sample_mib * (1 << 20));
  if (arguments.split == "line") options.text.split = TextOptions::Split::kLine;
  if (arguments.split == "paragraph") options.text.split = TextOptions::Split::kParagraph;
  const auto start = std::chrono::steady_clock::now();
  absl::StatusOr<BuildReport> report;
  {
    ProgressPrinter printer;
    report =
        BuildTokenFile(options, [&](const BuildProgress& progress) { printer.Show(progress); });
  }
  if (!report.ok()) return report.status();
  const TextReport& text = report->text;
  if (text.skipped_binary > 0) {
    std::fprintf(stderr, "skipped %s\n", Count(text.skipped_binary, "binary file").c_str());
  }
  if (text.skipped_empty > 0) {
    std::fprintf(stderr, "skipped %s\n", Count(text.skipped_empty, "empty text").c_str());
  }
  if (text.unreadable > 0) {
    std::fprintf(stderr, "could not read %s, first: %s\n",
                 Count(text.unreadable, "file or folder").c_str(), text.first_unreadable.c_str());
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (arguments.json) {
    const nlohmann::ordered_json object = {
        {"path", options.output},
        {"documents", text.documents},
        {"tokens", report->tokens},
        {"text_bytes", text.bytes},
        {"tokenizer", report->tokenizer_kind},
        {"vocabulary", report->vocabulary},
        {"skipped_binary", text.skipped_binary},
        {"skipped_empty", text.skipped_empty},
        {"unreadable", text.unreadable},
        {"seconds", seconds},
    };
    std::puts(object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else {
    std::printf("%s: %s, %s from %s of text, %s tokenizer of %" PRId64 " ids, %.1f s\n",
                options.output.c_str(), Count(text.documents, "document").c_str(),
                Count(report->tokens, "token").c_str(), Bytes(text.bytes).c_str(),
                report->tokenizer_kind.c_str(), report->vocabulary, seconds);
  }
  return absl::OkStatus();
}

struct InspectArguments {
  std::string path;
  int64_t documents = 0;
  bool json = false;
};

// The beginning of one document.
struct Excerpt {
  int64_t document = 0;
  int64_t tokens = 0;
  int64_t shown = 0;
  std::string text;  // ids where the file has no tokenizer
};

absl::StatusOr<std::vector<Excerpt>> ReadExcerpts(const TokenFile& file, int64_t documents) {
  constexpr int64_t kShownTokens = 1000;
  std::unique_ptr<Tokenizer> tokenizer;
  if (file.tokenizer_kind() != "none") {
    const absl::StatusOr<std::string> serialized = file.tokenizer();
    if (!serialized.ok()) return serialized.status();
    absl::StatusOr<std::unique_ptr<Tokenizer>> created =
        CreateTokenizer(file.tokenizer_kind(), *serialized);
    if (!created.ok()) return created.status();
    tokenizer = *std::move(created);
  }
  std::vector<Excerpt> excerpts;
  for (int64_t document = 0; document < std::min(documents, file.documents()); ++document) {
    const int64_t begin = file.document_begin(document);
    Excerpt excerpt{document, file.document_begin(document + 1) - begin};
    excerpt.shown = std::min(excerpt.tokens, kShownTokens);
    std::vector<int32_t> ids(excerpt.shown);
    const absl::Status status = file.Read(begin, begin + excerpt.shown, ids.data());
    if (!status.ok()) return status;
    if (tokenizer != nullptr) {
      absl::StatusOr<std::string> text = tokenizer->Decode(ids);
      if (!text.ok()) return text.status();
      excerpt.text = *std::move(text);
    } else {
      for (const int32_t id : ids) {
        absl::StrAppend(&excerpt.text, excerpt.text.empty() ? "" : " ", id);
      }
    }
    excerpts.push_back(std::move(excerpt));
  }
  return excerpts;
}

// `part` of `whole` as a bar and a percentage.
std::string Bar(int64_t part, int64_t whole, int64_t largest) {
  constexpr int kWidth = 24;
  if (whole == 0) return std::string(kWidth + 6, ' ');
  const int full =
      static_cast<int>((static_cast<double>(part) * kWidth + static_cast<double>(largest) - 1) /
                       static_cast<double>(std::max<int64_t>(largest, 1)));
  const int width = part == 0 ? 0 : std::clamp(full, 1, kWidth);
  return absl::StrFormat("%5.1f%% %s%s",
                         100 * static_cast<double>(part) / static_cast<double>(whole),
                         std::string(width, '#'), std::string(kWidth - width, ' '));
}

void PrintSummary(const TokenFile& file, const LengthSummary& summary) {
  std::printf("%s\n", file.path().c_str());
  std::printf("  documents   %" PRId64 "\n  tokens      %" PRId64 "\n", summary.documents,
              summary.tokens);
  if (file.vocabulary() > 0) {
    std::printf("  vocabulary  %" PRId64 "   tokenizer %s, end of sequence %d\n", file.vocabulary(),
                file.tokenizer_kind().c_str(), file.end_of_sequence());
  } else {
    std::printf("  vocabulary  not stored in the file\n");
  }
  if (summary.documents == 0) return;
  std::printf("\nlength of a document in tokens\n ");
  std::vector<std::pair<std::string, std::string>> columns = {
      {"min", absl::StrCat(summary.minimum)}};
  for (size_t i = 0; i < summary.quantiles.size(); ++i) {
    columns.emplace_back(absl::StrCat(LengthSummary::kPercents[i], "%"),
                         absl::StrCat(summary.quantiles[i]));
  }
  columns.emplace_back("max", absl::StrCat(summary.maximum));
  columns.emplace_back("mean", absl::StrFormat("%.1f", summary.mean));
  for (const auto& [name, value] : columns) std::printf(" %10s", name.c_str());
  std::printf("\n ");
  for (const auto& [name, value] : columns) std::printf(" %10s", value.c_str());
  std::printf("\n\n%23s   %-33s %s\n", "length", "documents", "tokens");
  int64_t most_documents = 0, most_tokens = 0;
  for (const LengthSummary::Bin& bin : summary.bins) {
    most_documents = std::max(most_documents, bin.documents);
    most_tokens = std::max(most_tokens, bin.tokens);
  }
  for (const LengthSummary::Bin& bin : summary.bins) {
    std::string tokens = Bar(bin.tokens, summary.tokens, most_tokens);
    tokens.erase(tokens.find_last_not_of(' ') + 1);
    std::printf("%11" PRId64 " -%10" PRId64 "  %s  %s\n", bin.begin, bin.end - 1,
                Bar(bin.documents, summary.documents, most_documents).c_str(), tokens.c_str());
  }
}

nlohmann::ordered_json ToJson(const TokenFile& file, const LengthSummary& summary,
                              const std::vector<Excerpt>& excerpts) {
  nlohmann::ordered_json quantiles = {{"min", summary.minimum}};
  for (size_t i = 0; i < summary.quantiles.size(); ++i) {
    quantiles[absl::StrCat(LengthSummary::kPercents[i])] = summary.quantiles[i];
  }
  quantiles["max"] = summary.maximum;
  nlohmann::ordered_json bins = nlohmann::ordered_json::array();
  for (const LengthSummary::Bin& bin : summary.bins) {
    bins.push_back({{"begin", bin.begin},
                    {"end", bin.end},
                    {"documents", bin.documents},
                    {"tokens", bin.tokens}});
  }
  nlohmann::ordered_json object = {
      {"path", file.path()},
      {"documents", summary.documents},
      {"tokens", summary.tokens},
      {"vocabulary", file.vocabulary()},
      {"tokenizer", file.tokenizer_kind()},
      {"end_of_sequence", file.end_of_sequence()},
      {"mean_length", summary.mean},
      {"length_quantiles", std::move(quantiles)},
      {"histogram", std::move(bins)},
  };
  if (excerpts.empty()) return object;
  nlohmann::ordered_json texts = nlohmann::ordered_json::array();
  for (const Excerpt& excerpt : excerpts) {
    texts.push_back({{"document", excerpt.document},
                     {"tokens", excerpt.tokens},
                     {"tokens_shown", excerpt.shown},
                     {"text", excerpt.text}});
  }
  object["texts"] = std::move(texts);
  return object;
}

absl::Status Inspect(const InspectArguments& arguments) {
  const absl::StatusOr<std::unique_ptr<TokenFile>> file = TokenFile::Open(arguments.path);
  if (!file.ok()) return file.status();
  std::vector<int64_t> lengths((*file)->documents());
  for (int64_t d = 0; d < (*file)->documents(); ++d) {
    lengths[d] = (*file)->document_begin(d + 1) - (*file)->document_begin(d);
  }
  const LengthSummary summary = SummarizeLengths(std::move(lengths));
  const absl::StatusOr<std::vector<Excerpt>> excerpts = ReadExcerpts(**file, arguments.documents);
  if (!excerpts.ok()) return excerpts.status();
  if (arguments.json) {
    // Bytes that are not UTF-8 have no place in JSON.
    std::puts(ToJson(**file, summary, *excerpts)
                  .dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
                  .c_str());
    return absl::OkStatus();
  }
  PrintSummary(**file, summary);
  for (const Excerpt& excerpt : *excerpts) {
    std::printf("\n--- document %" PRId64 ", %s\n%s%s", excerpt.document,
                Count(excerpt.tokens, "token").c_str(), excerpt.text.c_str(),
                excerpt.text.empty() || excerpt.text.back() != '\n' ? "\n" : "");
    if (excerpt.shown < excerpt.tokens) {
      std::printf("... %s more\n", Count(excerpt.tokens - excerpt.shown, "token").c_str());
    }
  }
  return absl::OkStatus();
}

void RegisterBuild(const Command& data, SelectedCommand* selected) {
  const Command command = data.AddCommand("build", "Makes a token data set from texts");
  command.Footer(kBuildFooter);
  const auto arguments = std::make_shared<BuildArguments>();
  BuildOptions& options = arguments->options;
  command.AddOption("inputs", options.text.inputs, "Directories, text files, .jsonl files")
      .Required()
      .ValueName("INPUT");
  command.AddOption("-o,--out", options.output, "The data set to write (HDF5)")
      .Required()
      .ValueName("FILE");
  command
      .AddOption("--tokenizer", options.tokenizer,
                 "\"byte\", a SentencePiece .model, or a token data set to use the tokenizer of")
      .ValueName("byte|FILE")
      .ShowDefault();
  command
      .AddOption("--train-vocab", options.train_vocabulary,
                 "Train a SentencePiece model of N pieces on a sample of the texts, and use it")
      .ValueName("N")
      .Positive();
  command
      .AddOption("--train-sample", arguments->train_sample_mib, "MiB of text to train the model on")
      .ValueName("MIB")
      .Positive()
      .ShowDefault();
  command.AddOption("--field", options.text.field, "Field of JSON lines that holds the text")
      .ValueName("NAME")
      .ShowDefault();
  command
      .AddOption("--extensions", options.text.extensions,
                 "Only files in directories that end so, e.g. .c,.h")
      .CommaSeparated()
      .ValueName("LIST");
  command
      .AddOption("--split", arguments->split,
                 "What is a document in a text file: file (default), line, paragraph (empty lines "
                 "between)")
      .ValueName("WHAT")
      .OneOf({"file", "line", "paragraph"});
  command.AddOption("--max-documents", options.text.maximum_documents, "Stop after N documents")
      .ValueName("N")
      .NonNegative();
  command
      .AddOption("--max-bytes", options.text.maximum_bytes,
                 "Stop after the document that reaches N bytes of text")
      .ValueName("N")
      .NonNegative();
  command.AddFlag("--json", arguments->json, "Print the result as JSON");
  command.OnChosen(
      [arguments, selected] { *selected = [arguments] { return Build(*arguments); }; });
}

void RegisterInspect(const Command& data, SelectedCommand* selected) {
  const Command command = data.AddCommand(
      "inspect", "Counts, quantiles and a histogram of document lengths of a token data set");
  command.Footer(kInspectFooter);
  const auto arguments = std::make_shared<InspectArguments>();
  command.AddOption("file", arguments->path, "Token data set, or a Megatron .bin/.idx pair")
      .Required()
      .ValueName("FILE");
  command.AddOption("--documents", arguments->documents, "Print the beginning of the first N")
      .ValueName("N")
      .NonNegative();
  command.AddFlag("--json", arguments->json, "Print everything as JSON");
  command.OnChosen(
      [arguments, selected] { *selected = [arguments] { return Inspect(*arguments); }; });
}

}  // namespace

void RegisterDataCommand(const Command& root, SelectedCommand* selected) {
  const Command data = root.AddCommand("data", "Makes and shows token data sets");
  data.RequireCommand();
  RegisterBuild(data, selected);
  RegisterInspect(data, selected);
}

}  // namespace longspan
