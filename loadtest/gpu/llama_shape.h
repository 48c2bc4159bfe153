// The shape that all measurements of a model speak of: Llama-3.1-8B.
#pragma once

namespace serval::gpu {

struct LlamaShape {
  int num_layers = 32, hidden = 4096, num_heads = 32, num_kv_heads = 8, head_dim = 128;
  int intermediate = 14336, vocab = 128256;
  int max_positions = 16384;

  int qkv() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
  // Of a layer's matrices; with the head, what a step reads.
  double layer_weights() const {
    return double(hidden) * (qkv() + num_heads * head_dim) + 3.0 * hidden * intermediate;
  }
  double step_weights() const { return num_layers * layer_weights() + double(hidden) * vocab; }
  double kv_values_per_token() const { return 2.0 * num_kv_heads * head_dim; }  // of a layer
};

}  // namespace serval::gpu
