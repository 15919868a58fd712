// How long attention takes in this program. The operators of kernels/attention.h are linked from
// one of two places: computing_attention.cc leaves them to the library, sleeping_attention.cc
// defines stand-ins that sleep.
#ifndef LONGSPAN_TESTS_BENCH_ATTENTION_PACE_H_
#define LONGSPAN_TESTS_BENCH_ATTENTION_PACE_H_

namespace longspan {

// The backward pass of a pair over its forward pass, in operations: five products for two.
inline constexpr double kBackwardOverForward = 2.5;

// Whether attention sleeps here instead of computing.
bool AttentionSleeps();
// What the forward pass of a (query, key) pair takes from now on, where attention sleeps; 0 at the
// start. For one thread, while no stream has work.
void SetAttentionPace(double forward_seconds_per_pair);

}  // namespace longspan

#endif  // LONGSPAN_TESTS_BENCH_ATTENTION_PACE_H_
