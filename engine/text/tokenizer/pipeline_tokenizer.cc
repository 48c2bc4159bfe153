#include "engine/text/tokenizer/pipeline_tokenizer.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "engine/text/tokenizer/tokenizer_config.h"
#include "kernels/base/check.h"
#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {

PipelineTokenizer::PipelineTokenizer(Parts parts) : parts_(std::move(parts)) {
  writes_bytes_ = parts_.normalizer.writes_bytes() || parts_.pretokenizer.writes_bytes();
  std::vector<AddedToken> raw, normalized;
  for (const AddedToken& token : parts_.added) {
    added_ids_.emplace(token.content, token.id);
    (token.normalized ? normalized : raw).push_back(token);
  }
  for (AddedToken& token : normalized) token.content = parts_.normalizer.apply(token.content);
  std::erase_if(normalized, [](const AddedToken& token) { return token.content.empty(); });
  raw_matcher_ = AddedTokenMatcher(std::move(raw));
  normalized_matcher_ = AddedTokenMatcher(std::move(normalized));
  fill_table();
  find_bound();
}

const Vocabulary& PipelineTokenizer::vocabulary() const {
  return std::visit([](const auto& model) -> const Vocabulary& { return model.vocabulary(); }, parts_.model);
}

void PipelineTokenizer::fill_table() {
  const Vocabulary& vocabulary = this->vocabulary();
  TokenId largest = vocabulary.size() - 1;
  const int64_t max_id =
      2 * (int64_t{vocabulary.size()} + static_cast<int64_t>(parts_.added.size())) + 65'536;
  for (const AddedToken& token : parts_.added) {
    if (token.id > max_id) {
      throw std::runtime_error("added token " + in_quotes(token.content) + " has the id " +
                               std::to_string(token.id) + ", which is out of place in a vocabulary of " +
                               std::to_string(vocabulary.size()));
    }
    largest = std::max(largest, token.id);
  }
  std::vector<const AddedToken*> added_at(largest + 1, nullptr);
  for (const AddedToken& token : parts_.added) {
    const std::string_view name = vocabulary.name(token.id);
    const AddedToken* other = added_at[token.id];
    if (other != nullptr || (!name.empty() && name != token.content)) {
      throw std::runtime_error("tokens " + in_quotes(other ? other->content : name) + " and " +
                               in_quotes(token.content) + " share the id " + std::to_string(token.id));
    }
    added_at[token.id] = &token;
  }
  for (TokenId id = 0; id <= largest; ++id) {
    const AddedToken* added = added_at[id];
    const std::string_view name = vocabulary.name(id);
    if (added == nullptr || (!added->special && !name.empty())) {
      table_.add(parts_.decoder.decode(name), false);
    } else {
      table_.add(added->special ? added->content : parts_.decoder.decode_added(added->content),
                 added->special);
    }
  }
  std::vector<const std::vector<TokenId>*> inserted = {&parts_.prefix, &parts_.suffix};
  if (parts_.pair) inserted.insert(inserted.end(), {&parts_.pair->prefix, &parts_.pair->middle, &parts_.pair->suffix});
  for (const auto* ids : inserted) {
    for (const TokenId id : *ids) {
      if (id > largest)
        throw std::runtime_error("the post_processor inserts the id " + std::to_string(id) +
                                 ", which no token has");
    }
  }
}

void PipelineTokenizer::find_bound() {
  const Loss of_model =
      std::visit([&](const auto& model) { return model.loss(writes_bytes_); }, parts_.model);
  bound_.loss = std::max({parts_.normalizer.loss(), parts_.pretokenizer.loss(), of_model});
  constexpr size_t kUnknown = 4;  // one character, as the unknown token
  bound_.max_bytes =
      std::max(kUnknown, vocabulary().longest_name(writes_bytes_)) * parts_.normalizer.max_shrink();
  for (const AddedToken& token : parts_.added) {
    if (token.lstrip || token.rstrip) bound_.loss = std::max(bound_.loss, Loss::kWhiteSpace);
    size_t bytes = token.content.size();
    if (token.normalized)
      bytes = parts_.normalizer.apply(token.content).size() * parts_.normalizer.max_shrink();
    bound_.max_bytes = std::max(bound_.max_bytes, bytes);
  }
}

size_t PipelineTokenizer::least_tokens(std::string_view text) const {
  return is_valid_utf8(text) ? bound_.least_tokens(text) : 0;
}

std::vector<std::string> PipelineTokenizer::special_names() const {
  std::vector<std::string> names;
  for (const AddedToken& token : parts_.added) {
    if (token.special) names.push_back(token.content);
  }
  return names;
}

TokenId PipelineTokenizer::token_to_id(std::string_view token) const {
  const auto it = added_ids_.find(token);
  return it != added_ids_.end() ? it->second : vocabulary().find(token);
}

std::vector<TokenId> PipelineTokenizer::encode(std::string_view text, bool add_special, bool parse_special,
                                               std::string_view breaker) const {
  std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired = repair_utf8(text);
    text = repaired;
  }
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 3 + parts_.prefix.size() + parts_.suffix.size());
  if (add_special) ids.insert(ids.end(), parts_.prefix.begin(), parts_.prefix.end());

  std::vector<TextSegment> segments, inner_segments;
  std::string normalized, unbroken;
  Pieces pieces;
  SplitBudget budget(text.size());
  const auto encode_part = [&](const auto& model, auto& scratch, std::string_view part, bool starts_text) {
    do {
      const std::string_view first = parts_.cut.is_there() ? parts_.cut.take(part) : std::exchange(part, {});
      parts_.pretokenizer.split(first, starts_text, budget, pieces);
      for (size_t i = 0; i < pieces.spans.size(); ++i) model.encode(pieces.piece(i), scratch, ids);
      starts_text = false;
    } while (!part.empty());
  };
  const auto encode_plain = [&](const auto& model, auto& scratch, std::string_view plain, bool starts_text) {
    if (breaker.empty() || plain.find(breaker) == std::string_view::npos)
      return encode_part(model, scratch, plain, starts_text);
    const size_t num_before = ids.size();
    unbroken = without(plain, breaker);
    encode_part(model, scratch, unbroken, starts_text);
    const auto is_special = [&](TokenId id) { return id != model.unk_id() && table_.is_special(id); };
    if (std::none_of(ids.begin() + static_cast<std::ptrdiff_t>(num_before), ids.end(), is_special)) return;
    // The name is an ordinary one of the model's too, and so the model would put it together again.
    ids.resize(num_before);
    for (size_t begin = 0; begin <= plain.size();) {
      const size_t end = std::min(plain.find(breaker, begin), plain.size());
      encode_part(model, scratch, plain.substr(begin, end - begin), starts_text && begin == 0);
      begin = end + breaker.size();
    }
  };
  const auto encode_all = [&](const auto& model) {
    typename std::remove_cvref_t<decltype(model)>::Scratch scratch;
    for (const TextSegment& segment : segments) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
        continue;
      }
      std::string_view plain = segment.text;
      if (!parts_.normalizer.is_identity()) {
        normalized = parts_.normalizer.apply(plain);
        plain = normalized;
      }
      const bool starts_text = segment.text.data() == text.data();
      normalized_matcher_.split(plain, parse_special, inner_segments);
      for (const TextSegment& inner : inner_segments) {
        if (inner.id >= 0) {
          ids.push_back(inner.id);
        } else {
          encode_plain(model, scratch, inner.text, starts_text && inner.text.data() == plain.data());
        }
      }
    }
  };
  raw_matcher_.split(text, parse_special, segments);
  std::visit(encode_all, parts_.model);
  if (add_special) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
  return ids;
}

TextPair PipelineTokenizer::encode_pair(std::string_view first, std::string_view second, size_t most) const {
  SERVAL_CHECK(joins_texts());
  const PairTemplate& pair = *parts_.pair;
  const size_t num_between = pair.prefix.size() + pair.middle.size() + pair.suffix.size(), room = most - std::min(most, num_between);
  std::vector<TokenId> a = encode(first, /*add_special=*/false, /*parse_special=*/true, {}),
                       b = encode(second, /*add_special=*/false, /*parse_special=*/true, {});
  if (a.size() + b.size() > room) {
    std::vector<TokenId>&shorter = a.size() > b.size() ? b : a, &longer = a.size() > b.size() ? a : b;
    if (2 * shorter.size() > room) shorter.resize(room / 2);
    longer.resize(room - shorter.size());
  }
  TextPair both{.ids = pair.prefix};
  const auto append = [&](const std::vector<TokenId>& ids) { both.ids.insert(both.ids.end(), ids.begin(), ids.end()); };
  append(a);
  if (pair.num_of_first) both.second = both.ids.size() + *pair.num_of_first;
  append(pair.middle);
  append(b);
  append(pair.suffix);
  return both;
}

std::unique_ptr<Tokenizer> assemble_tokenizer(PipelineTokenizer::Parts parts, std::vector<AddedToken> listed,
                                              const TokenizerConfig& config) {
  const auto find = [&](std::string_view name) {
    return std::visit([&](const auto& model) { return model.vocabulary().find(name); }, parts.model);
  };
  parts.added = join_added_tokens(std::move(listed), config, find);
  const auto id_of = [&](const std::string& name) -> TokenId {
    for (const AddedToken& token : parts.added) {
      if (token.content == name) return token.id;
    }
    return -1;
  };
  parts.bos_id = id_of(config.bos_token);
  parts.eos_id = id_of(config.eos_token);
  apply_bos_eos(config, parts.bos_id, parts.eos_id, parts.prefix, parts.suffix);
  return std::make_unique<PipelineTokenizer>(std::move(parts));
}

}  // namespace serval
