// Drawings of a plan's timeline: who computes what, when. Pure.
#ifndef LONGSPAN_PARALLEL_PLAN_DRAWING_H_
#define LONGSPAN_PARALLEL_PLAN_DRAWING_H_

#include <string>

#include "parallel/plan_timeline.h"

namespace longspan {

// A line a rank, `columns` characters wide: a ring's letter (a to z, A to Z, then again) while the
// rank runs in it, '=' for whole sequences, '.' for nothing. A character shows what its middle
// falls into.
std::string TextTimeline(const PlanTimeline& timeline, int columns);

// An SVG image, ranks down and time across: rings coloured by width, whole sequences grey, the
// lower bound as a dashed line. Of more ranks than fit on a screen each row shows one of several.
std::string SvgTimeline(const PlanTimeline& timeline, double lower_bound_seconds,
                        const std::string& title);

}  // namespace longspan

#endif  // LONGSPAN_PARALLEL_PLAN_DRAWING_H_
