// The table of architectures: which function turns a configuration into a ModelSpec, and which of
// config.json's fields mean something to the architecture. A new dense architecture is one function and one
// row in architectures.cc.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "engine/model/model_config.h"
#include "engine/model/model_spec.h"

namespace serval {

// How an architecture reads the window fields.
enum class WindowRule : uint8_t {
  kNone,       // it has none
  kAllLayers,  // sliding_window, when not null, holds for every layer
  kPerLayer,   // use_sliding_window switches it on; layer_types, or else max_window_layers, says where
};

// Where published configurations of an architecture differ in what a field means or what its absence means.
struct ConfigDialect {
  WindowRule window = WindowRule::kNone;
  bool reads_attention_bias = false;
  bool reads_mlp_bias = false;
  bool requires_num_kv_heads = true;  // else: absent means num_attention_heads
  bool requires_head_dim = false;     // else: absent means hidden_size / num_attention_heads
};

struct Architecture {
  std::string_view name;        // as config.json's "architectures" spells it
  std::string_view model_type;  // its "model_type", which decides where "architectures" says nothing
  ModelSpec (*make_spec)(const ModelConfig&);
  ConfigDialect dialect;
};

std::span<const Architecture> architectures();
// Throw std::runtime_error with a sentence that lists what is supported.
const Architecture& find_architecture(std::string_view name);
const Architecture& find_architecture_of_type(std::string_view model_type);

}  // namespace serval
