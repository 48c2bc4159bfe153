// DeepSpeed's floats of 6 and 8 bits: the files have plain numbers, which who serves them rounds to E3M2 or E4M3 while they are
// loaded, under a scale for each so many neighbours that makes the largest code of their largest magnitude. The numbers that it
// rounds to are those of the formats, subnormals too, ties to even; DeepSpeed's own kernels (csrc/fp_quantizer) leave subnormals
// out, so that nothing below the least normal number stays itself, and let groups go on into the next row.
#include "engine/model/quantised/method.h"

namespace serval {

MatrixFormat deepspeed_format(const boost::json::object& config) {
  const int64_t bits = integer_in(config, "bits", 0), group = integer_in(config, "group_size", 512);
  if (bits != 6 && bits != 8) throw UnsupportedQuantisation(std::to_string(bits) + " bit");
  const WeightFormat format = bits == 6 ? WeightFormat::kFp6 : WeightFormat::kFp8;
  if (group < 1 || group % format_row(format).together != 0) throw UnsupportedQuantisation("group_size " + std::to_string(group));
  return {format, group};
}

}  // namespace serval
