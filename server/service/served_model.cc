#include "server/service/served_model.h"

#include <boost/json.hpp>
#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "engine/model/gguf_model.h"
#include "engine/model/model_folder.h"
#include "engine/model/read_model.h"
#include "engine/model/weight_loader.h"
#include "engine/text/tokenizer/load_tokenizer.h"
#include "engine/text/tokenizer/sentence_config.h"
#include "engine/text/tokenizer/sentencepiece_tokenizer.h"
#include "engine/text/tokenizer/tokenizer_json.h"
#include "kernels/base/check.h"
#include "kernels/base/regular_file.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxTemplateBytes = size_t{4} << 20;
constexpr size_t kMaxConfigBytes = size_t{64} << 20;  // added tokens are listed there

using Sources = std::vector<std::pair<std::string, std::string>>;  // names and texts

// Of "chat_template": a text, or a list of them with names.
void add_listed(const Fields& config, Sources& sources) {
  const boost::json::value* source = config.find("chat_template");
  if (!source) return;
  if (source->is_string()) {
    sources.emplace_back(kDefaultTemplate, source->get_string());
    return;
  }
  for (const boost::json::value& value : config.get_array("chat_template")) {
    const Fields entry = config.inside(value, "chat_template");
    sources.emplace_back(entry.get_string("name"), entry.get_string("template"));
  }
}

// chat_template.jinja and additional_chat_templates/NAME.jinja; else what tokenizer_config.json has, or
// chat_template.json. None for a plain model.
Sources template_sources(const fs::path& folder) {
  Sources sources;
  if (fs::exists(folder / "chat_template.jinja"))
    sources.emplace_back(kDefaultTemplate,
                         read_regular_file(folder / "chat_template.jinja", kMaxTemplateBytes));
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder / "additional_chat_templates", none)) {
    if (entry.path().extension() != ".jinja") continue;
    sources.emplace_back(entry.path().stem().string(), read_regular_file(entry.path(), kMaxTemplateBytes));
  }
  for (const char* name : {"tokenizer_config.json", "chat_template.json"}) {
    const fs::path path = folder / name;
    if (!sources.empty() || !fs::exists(path)) continue;
    const boost::json::object object = read_json_file(path, kMaxConfigBytes);
    add_listed(Fields(object, path.string()), sources);
  }
  return sources;
}

ChatTemplates parse_templates(const fs::path& folder, const Sources& sources) {
  ChatTemplates templates;
  for (const auto& [name, source] : sources) {
    Result<ChatTemplate> parsed = ChatTemplate::parse(source);
    if (!parsed) {
      throw std::runtime_error("the model's chat template " + in_quotes(name) +
                               " cannot be used: " + parsed.error().message);
    }
    templates.emplace(name, std::move(*parsed));
  }
  if (!templates.empty() && !templates.contains(kDefaultTemplate))
    throw std::runtime_error(folder.string() + " has chat templates, but none that is named default");
  return templates;
}

}  // namespace

std::unique_ptr<Tokenizer> load_gguf_tokenizer(const GgufFile& gguf, int num_rows) {
  const GgufTokenizer texts = tokenizer_of_gguf(gguf);
  try {
    TokenizerConfig config = TokenizerConfig::parse(texts.config_json);
    config.num_rows = num_rows;
    return texts.tokenizer_json.empty() ? tokenizer_from_sentencepiece(texts.tokenizer_model, config)
                                        : tokenizer_from_json(texts.tokenizer_json, config);
  } catch (const std::exception& error) {
    throw std::runtime_error(gguf.file().path().string() + ": of its tokenizer: " + error.what());
  }
}

void check_draft_tokenizer(const Tokenizer& served, const std::string& draft) {
  const fs::path folder = resolve_model(draft);
  const std::unique_ptr<const Tokenizer> own = is_gguf(folder) ? load_gguf_tokenizer(GgufFile(folder), std::numeric_limits<int>::max())
                                                               : load_tokenizer(folder);
  const int common = std::min(own->vocab_size(), served.vocab_size());
  for (TokenId id = 0; id < common; ++id) {
    const std::string_view theirs = own->token_bytes(id), ours = served.token_bytes(id);
    // Where one has no token, padding, nobody draws it.
    if (theirs == ours || theirs.empty() || ours.empty()) continue;
    throw std::runtime_error("speculation_model: " + folder.string() + " has another tokenizer than the model: its token " +
                             std::to_string(id) + " is " + in_quotes(theirs) + ", the model's is " + in_quotes(ours));
  }
}

ServedModel read_served_model(const std::string& model) {
  ServedModel served;
  served.folder = resolve_model(model);
  served.name = is_gguf(served.folder) ? served.folder.stem().string()
                : fs::is_directory(model) ? fs::weakly_canonical(served.folder).filename().string() : model;
  served.spec = read_model_spec(served.folder);
  served.defaults = read_generation_defaults(served.folder, served.spec.vocab_size);
  if (is_gguf(served.folder)) {
    const GgufFile gguf(served.folder);
    served.tokenizer = load_gguf_tokenizer(gguf, served.spec.vocab_size);
    if (const std::string chat = tokenizer_of_gguf(gguf).chat_template; !chat.empty())
      served.chat_templates = parse_templates(served.folder, {{std::string(kDefaultTemplate), chat}});
  } else {
    served.tokenizer = load_tokenizer(served.folder, served.spec.vocab_size);
    served.chat_templates = parse_templates(served.folder, template_sources(served.folder));
    served.max_text_tokens = read_sentence_config(served.folder).max_seq_length;
  }
  SERVAL_CHECK(served.tokenizer->vocab_size() <= served.spec.vocab_size, served.tokenizer->vocab_size());
  check_weights(served.folder, served.spec);
  served.pooling = std::make_shared<const PoolingHead>(read_pooling_head(served.folder, served.spec, *served.tokenizer));
  return served;
}

}  // namespace serval
