// AutoRound (Cheng et al. 2023) stores what it has rounded in the layout of another tool, which packing_format names.
#include "engine/model/quantised/method.h"

namespace serval {

std::vector<StoredMatrix> find_auto_round(const Checkpoint& checkpoint, const boost::json::object& config) {
  const std::string layout = string_in(config, "packing_format");
  if (layout == "auto_round:auto_gptq" || layout == "auto_round:gptq") return find_gptq(checkpoint, config);
  if (layout == "auto_round:auto_awq" || layout == "auto_round:awq") return find_awq(checkpoint, config);
  throw UnsupportedQuantisation("packing_format " + (layout.empty() ? "missing" : layout.substr(0, 40)));
}

}  // namespace serval
