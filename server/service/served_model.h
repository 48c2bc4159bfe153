// What a model folder holds beside its weights, read in one place: configuration, defaults, tokenizer and
// chat template, and the proof that the ids of all of them fit the model. `serve` and `plan` both begin here,
// so that they refuse the same folders. Start-up only.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "engine/model/generation_defaults.h"
#include "engine/model/model_spec.h"
#include "engine/text/template/chat_template.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "server/service/pooling_head.h"

namespace serval {

class GgufFile;

struct ServedModel {
  std::filesystem::path folder;
  std::string name;  // "org/name" of the cache, or the folder's own
  ModelSpec spec;
  GenerationDefaults defaults;                 // every id of theirs is below spec.vocab_size
  std::shared_ptr<const Tokenizer> tokenizer;  // and so is every id that it gives
  ChatTemplates chat_templates;                // none for a plain model
  std::shared_ptr<const PoolingHead> pooling;  // never null
  std::optional<int> max_text_tokens;          // of a text that it makes a vector of (SentenceConfig)
};

// The tokenizer in a GGUF file's metadata, of a model with so many rows of its embedding. Throws std::runtime_error with a
// sentence.
std::unique_ptr<Tokenizer> load_gguf_tokenizer(const GgufFile& gguf, int num_rows);

// `model` as resolve_model() takes it. Reads the headers of the weights too. Throws std::runtime_error with
// one sentence; what can be left out of a folder without harm is left out, with a line in the log.
ServedModel read_served_model(const std::string& model);

// Throws std::runtime_error with a sentence where a model that guesses for one with this tokenizer has another: an id that
// both have would mean something else.
void check_draft_tokenizer(const Tokenizer& served, const std::string& draft);

}  // namespace serval
