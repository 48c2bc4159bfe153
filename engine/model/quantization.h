// How a folder says that its weights are quantised, in words for the sentence that refuses it. Every tool
// writes an object of its own shape; what they share is a method's name and a number of bits.
#pragma once

#include <boost/json/fwd.hpp>
#include <string>

namespace serval {

// "AWQ, 4 bit" for the value of quantization_config; "compressed-tensors, 8 bit float" and the like. As much
// of it as the object tells; "quantised" when it tells nothing.
std::string quantization_name(const boost::json::value& config);

}  // namespace serval
