// What a grammar is once it is compiled, for the matcher (matcher.h) to run: values of JSON whose kinds point at
// each other, and automata over text that may call rules. Immutable; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/grammar/dfa.h"

namespace serval::grammar {

struct ObjectRule;
struct ArrayRule;

// What a JSON value may be.
struct ValueRule {
  bool null = false, yes = false, no = false;
  std::shared_ptr<const Dfa> string, number;  // of its code points; of its text. Null: none
  std::vector<const ObjectRule*> objects;     // any of them
  std::vector<const ArrayRule*> arrays;
  size_t num_values = 0;  // distinct ones, kNoLimit: without end, or not known
};

// One way to go on: the value, and what it counts for.
struct Choice {
  const ValueRule* value = nullptr;
  uint32_t claims = 0;  // bit i: it is what obligation i of its object or array asks for
};

struct ObjectRule {
  struct Key {
    int32_t name = -1;  // which of the names that are told apart; such a key occurs at most once
    std::vector<Choice> choices;
  };
  Dfa key_text;  // labels: into keys
  std::vector<Key> keys;
  int32_t num_names = 0;
  // Per state of key_text: the names that its text may become, a bit each in words_per_state words; and whether it
  // may become a key without a name.
  std::vector<uint64_t> reachable;
  std::vector<bool> reaches_other;
  int32_t num_words = 0;
  std::vector<uint64_t> required;  // a bit for each name
  struct Implication {
    int32_t when, then;
  };
  std::vector<Implication> implications;
  size_t min_keys = 0, max_keys = kNoLimit;
  uint32_t obligations = 0;  // each claimed by some key
  bool distinct = false;     // keys without a name must be distinct too
  bool is_open = false;      // whatever a key's text is, it may become one without a name, and there is no limit
};

struct ArrayRule {
  std::vector<std::vector<Choice>> first;  // of the items at these places
  std::vector<Choice> rest;                // of those behind
  size_t min_items = 0, max_items = kNoLimit;
  struct Obligation {
    uint16_t min = 0, max = 0xFFFF;  // items that claim it; 0xFFFF: without limit
  };
  std::vector<Obligation> obligations;  // at most 4
  bool distinct = false;                // no two items are equal
};

// A rule of a grammar, over the text as it is. Symbols above the code points call the callee of that number.
struct TextRule {
  Dfa text;
  bool calls = false;
  bool may_be_empty = false;  // with what it calls
  bool is_prefix_free = false;  // no text of it goes on as another; false also where nobody asked
};
inline constexpr Symbol kFirstCall = kLastCodePoint + 1;
// Further above, the value of JSON of that number.
inline constexpr Symbol kFirstValueCall = kFirstCall + (Symbol{1} << 24);

struct Program {
  const ValueRule* value = nullptr;  // one of the two is the start
  const TextRule* text = nullptr;
  bool matches_nothing = false;
  std::vector<std::unique_ptr<TextRule>> text_rules;  // callees
  std::vector<const ValueRule*> called_values;
  std::vector<std::unique_ptr<ValueRule>> values;
  std::vector<std::unique_ptr<ObjectRule>> objects;
  std::vector<std::unique_ptr<ArrayRule>> arrays;
};

}  // namespace serval::grammar
