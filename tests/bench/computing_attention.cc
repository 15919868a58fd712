#include "attention_pace.h"

namespace longspan {

bool AttentionSleeps() { return false; }
void SetAttentionPace(double) {}

}  // namespace longspan
