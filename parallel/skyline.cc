#include "parallel/skyline.h"

#include <algorithm>
#include <deque>
#include <iterator>

#include "kernels/device/check.h"

namespace longspan {

Skyline::Skyline(int ranks, Choice choice) : ranks_(ranks), choice_(choice), starts_(ranks, -1) {
  head_ = Add(0, ranks, 0, -1, -1);
}

int Skyline::Add(int first, int size, PlanningTime free_at, int previous, int next) {
  const int index = static_cast<int>(segments_.size());
  segments_.push_back({first, size, free_at, previous, next, true});
  starts_[first] = index;
  ++alive_;
  if (previous >= 0) {
    segments_[previous].next = index;
  } else {
    head_ = index;
  }
  if (next >= 0) segments_[next].previous = index;
  if (choice_ == Choice::kFreeFirst) {
    by_load_.push({free_at, size, first, index});
  } else {
    by_size_[size].insert({free_at, first});
  }
  return index;
}

void Skyline::Remove(int segment) {
  segments_[segment].alive = false;
  if (choice_ == Choice::kFullest) {
    const Segment& gone = segments_[segment];
    const auto entry = by_size_.find(gone.size);
    entry->second.erase({gone.free_at, gone.first});
    if (entry->second.empty()) by_size_.erase(entry);
  }
  int& start = starts_[segments_[segment].first];
  if (start == segment) start = -1;
  --alive_;
}

Skyline::Interval Skyline::WithoutWaiting(int width, PlanningTime latest) {
  return choice_ == Choice::kFreeFirst ? FreeFirst(width) : Fullest(width, latest);
}

Skyline::Interval Skyline::Fullest(int width, PlanningTime latest) const {
  const auto last_by = [&](const std::set<std::pair<PlanningTime, int>>& segments) -> Interval {
    const auto after = segments.upper_bound({latest, ranks_});
    if (after == segments.begin()) return {-1, 0};
    const auto& [free_at, first] = *std::prev(after);
    return {first, free_at};
  };
  const auto same = by_size_.find(width);
  if (same != by_size_.end()) {
    if (const Interval found = last_by(same->second); found.first >= 0) return found;
  }
  for (auto size = by_size_.rbegin(); size != by_size_.rend() && size->first >= width; ++size) {
    const auto& [free_at, first] = *size->second.begin();
    if (free_at == 0) return {first, 0};
  }
  for (auto size = by_size_.upper_bound(width); size != by_size_.end(); ++size) {
    if (const Interval found = last_by(size->second); found.first >= 0) return found;
  }
  return {-1, 0};
}

Skyline::Interval Skyline::FreeFirst(int width) {
  while (!too_small_.empty() && too_small_.top().first >= width) {
    const int index = too_small_.top().second;
    const Segment& segment = segments_[index];
    if (segment.alive) by_load_.push({segment.free_at, segment.size, segment.first, index});
    too_small_.pop();
  }
  while (!by_load_.empty()) {
    const auto [free_at, size, first, index] = by_load_.top();
    if (segments_[index].alive) {
      if (size >= width) return {first, free_at};
      too_small_.push({size, index});
    }
    by_load_.pop();
  }
  return {-1, 0};
}

Skyline::Interval Skyline::Earliest(int width) const {
  // The best interval can be moved until it begins where a segment does, or ends where one does.
  struct Step {
    int first, size;
    PlanningTime free_at;
  };
  std::vector<Step> steps;
  steps.reserve(alive_);
  for (int i = head_; i >= 0; i = segments_[i].next) {
    steps.push_back({segments_[i].first, segments_[i].size, segments_[i].free_at});
  }
  Interval best{-1, 0};
  PlanningTime best_waiting = 0;
  const auto scan = [&](bool from_left) {
    const size_t count = steps.size();
    const auto step = [&](size_t i) -> const Step& { return steps[from_left ? i : count - 1 - i]; };
    std::deque<size_t> highest;  // candidates for the greatest load of the window
    size_t end = 0;              // of the window, in steps
    int covered = 0;
    PlanningTime load = 0;  // the sum over the window's ranks, its last step in full
    for (size_t begin = 0; begin < count; ++begin) {
      while (end < count && covered < width) {
        while (!highest.empty() && step(highest.back()).free_at <= step(end).free_at) {
          highest.pop_back();
        }
        highest.push_back(end);
        covered += step(end).size;
        load += step(end).free_at * step(end).size;
        ++end;
      }
      if (covered < width) break;
      const PlanningTime free_at = step(highest.front()).free_at;
      const PlanningTime waiting =
          free_at * width - (load - step(end - 1).free_at * (covered - width));
      const int first =
          from_left ? step(begin).first : step(begin).first + step(begin).size - width;
      if (best.first < 0 ||
          std::tie(free_at, waiting, first) < std::tie(best.free_at, best_waiting, best.first)) {
        best = {first, free_at};
        best_waiting = waiting;
      }
      covered -= step(begin).size;
      load -= step(begin).free_at * step(begin).size;
      if (highest.front() == begin) highest.pop_front();
    }
  };
  scan(true);
  scan(false);
  return best;
}

void Skyline::Occupy(int first, int width, PlanningTime free_at, PlanningTime end,
                     std::vector<Wait>* waits) {
  LONGSPAN_CHECK(first >= 0 && first + width <= ranks_, "an interval of the rank line");
  const int last = first + width;
  int begin_of = first;
  while (starts_[begin_of] < 0) --begin_of;
  int at = starts_[begin_of];
  const int previous = segments_[at].previous;
  int left = previous;
  if (segments_[at].first < first) {
    const Segment whole = segments_[at];
    left = Add(whole.first, first - whole.first, whole.free_at, whole.previous, whole.next);
  }
  int next = -1;
  for (; at >= 0 && segments_[at].first < last;) {
    const Segment segment = segments_[at];
    const int from = std::max(first, segment.first);
    const int to = std::min(last, segment.first + segment.size);
    if (waits != nullptr && segment.free_at < free_at) {
      waits->push_back({from, to - from, segment.free_at});
    }
    Remove(at);
    next = segment.next;
    if (segment.first + segment.size > last) {
      next = Add(last, segment.first + segment.size - last, segment.free_at, left, segment.next);
    }
    at = segment.next;
  }
  // Neighbours that are free at the same time become one.
  int begin = first;
  int size = width;
  if (left >= 0 && segments_[left].free_at == end) {
    begin = segments_[left].first;
    size += segments_[left].size;
    Remove(left);
    left = segments_[left].previous;
  }
  if (next >= 0 && segments_[next].free_at == end) {
    size += segments_[next].size;
    Remove(next);
    next = segments_[next].next;
  }
  Add(begin, size, end, left, next);
}

std::vector<PlanningTime> Skyline::FreeAt() const {
  std::vector<PlanningTime> free_at(ranks_);
  for (int i = head_; i >= 0; i = segments_[i].next) {
    std::fill_n(free_at.begin() + segments_[i].first, segments_[i].size, segments_[i].free_at);
  }
  return free_at;
}

}  // namespace longspan
