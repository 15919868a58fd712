// TaggedMessages: host messages of one rank that have arrived and were not asked for yet. What the
// transports' SendTagged and ReceiveTagged have in common.
#ifndef LONGSPAN_PARALLEL_TRANSPORT_TAGGED_MESSAGES_H_
#define LONGSPAN_PARALLEL_TRANSPORT_TAGGED_MESSAGES_H_

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace longspan {

// Not thread-safe.
class TaggedMessages {
 public:
  void Add(int source, std::string_view tag, std::string bytes) {
    messages_[{source, std::string(tag)}].push_back(std::move(bytes));
  }
  // The oldest from `source` with that tag.
  std::optional<std::string> Take(int source, std::string_view tag) {
    const auto found = messages_.find({source, std::string(tag)});
    if (found == messages_.end()) return std::nullopt;
    std::string bytes = std::move(found->second.front());
    found->second.pop_front();
    if (found->second.empty()) messages_.erase(found);
    return bytes;
  }
  void Drop(std::string_view prefix) {
    for (auto at = messages_.begin(); at != messages_.end();) {
      at = at->first.second.compare(0, prefix.size(), prefix) == 0 ? messages_.erase(at)
                                                                   : std::next(at);
    }
  }

 private:
  std::map<std::pair<int, std::string>, std::deque<std::string>> messages_;  // never empty queues
};

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_TRANSPORT_TAGGED_MESSAGES_H_
