// Encoders after BERT (Devlin et al. 2019): norms behind the residual, learned positions, rows that see those behind
// them. RoBERTa (Liu et al. 2019) and XLM-R (Conneau et al. 2020) count positions from behind that of padding;
// DistilBERT (Sanh et al. 2019) has half of BERT's layers and one kind of text.
#pragma once

#include "engine/model/architectures/architecture.h"

namespace serval {

extern const Architecture kBert, kDistilBert, kRoberta, kXlmRoberta;

}  // namespace serval
