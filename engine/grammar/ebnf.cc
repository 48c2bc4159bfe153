#include "engine/grammar/ebnf.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "engine/grammar/regex.h"

namespace serval::grammar {
namespace {

constexpr size_t kMaxDepth = 100;
constexpr int kMaxInlined = 400;  // states of a rule that is copied to where it is called
constexpr size_t kMaxRepeat = 10'000;

[[noreturn]] void refuse(const std::string& why) { throw Refusal("grammar", why); }

bool is_name(char32_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

// Rules as trees; a call of rule i is the symbol kFirstCall + i.
struct Rules {
  std::vector<std::string> names;
  std::vector<std::optional<Regex>> bodies;

  int32_t place_of(const std::string& name) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found != names.end()) return static_cast<int32_t>(found - names.begin());
    names.push_back(name);
    bodies.emplace_back();
    return static_cast<int32_t>(names.size()) - 1;
  }
};

// Terminals that Lark's library is asked for.
const std::map<std::string_view, std::string_view>& common_terminals() {
  static const std::map<std::string_view, std::string_view> table = {
      {"DIGIT", "[0-9]"},
      {"HEXDIGIT", "[0-9A-Fa-f]"},
      {"INT", "[0-9]+"},
      {"SIGNED_INT", "[+-]?[0-9]+"},
      {"DECIMAL", R"([0-9]+\.[0-9]*|\.[0-9]+)"},
      {"FLOAT", R"([0-9]+[eE][+-]?[0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)"},
      {"SIGNED_FLOAT", R"([+-]?([0-9]+[eE][+-]?[0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?))"},
      {"NUMBER", R"([0-9]+([eE][+-]?[0-9]+)?|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)"},
      {"SIGNED_NUMBER", R"([+-]?([0-9]+([eE][+-]?[0-9]+)?|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?))"},
      {"ESCAPED_STRING", R"("([^"\\\n]|\\[^\n])*")"},
      {"LCASE_LETTER", "[a-z]"},
      {"UCASE_LETTER", "[A-Z]"},
      {"LETTER", "[A-Za-z]"},
      {"WORD", "[A-Za-z]+"},
      {"CNAME", "[A-Za-z_][A-Za-z0-9_]*"},
      {"WS_INLINE", R"([ \t]+)"},
      {"WS", R"([ \t\f\r\n]+)"},
      {"CR", R"(\r)"},
      {"LF", R"(\n)"},
      {"NEWLINE", R"((\r?\n)+)"},
  };
  return table;
}

class Parser {
 public:
  Parser(std::u32string text, bool is_lark, Budget& budget)
      : text_(std::move(text)), is_lark_(is_lark), budget_(budget) {}

  Rules parse() {
    for (skip(true); !at_end(); skip(true)) statement();
    return std::move(rules_);
  }

 private:
  bool at_end() const { return pos_ >= text_.size(); }
  char32_t peek(size_t ahead = 0) const { return pos_ + ahead < text_.size() ? text_[pos_ + ahead] : 0; }
  bool take(std::u32string_view word) {
    if (text_.compare(pos_, word.size(), word) != 0) return false;
    pos_ += word.size();
    return true;
  }
  // Spaces and comments, line ends too where a rule may go on.
  void skip(bool lines) {
    for (;;) {
      if (peek() == ' ' || peek() == '\t' || peek() == '\r' || (lines && peek() == '\n')) {
        ++pos_;
      } else if ((!is_lark_ && peek() == '#') || (is_lark_ && peek() == '/' && peek(1) == '/') ||
                 (is_lark_ && peek() == '#')) {
        while (!at_end() && peek() != '\n') ++pos_;
      } else {
        return;
      }
    }
  }
  // Whether the next line goes on with a choice: a '|' begins it. Then stands before it.
  bool goes_on() {
    const size_t before = pos_;
    skip(true);
    if (peek() == '|') return true;
    pos_ = before;
    return false;
  }

  std::string name() {
    std::string out;
    while (is_name(peek())) out.push_back(static_cast<char>(text_[pos_++]));
    if (out.empty()) refuse("has something that is no rule near its character " + std::to_string(pos_));
    return out;
  }

  void statement() {
    if (is_lark_ && take(U"%")) return directive();
    if (is_lark_) {
      while (peek() == '?' || peek() == '!') ++pos_;
    }
    const std::string rule = name();
    if (is_lark_ && take(U".")) name();  // a priority: it makes no difference to what is accepted
    skip(false);
    if (!take(is_lark_ ? U":" : U"::=")) refuse("has a rule without a body: " + rule);
    const int32_t place = rules_.place_of(rule);
    if (rules_.bodies[place]) refuse("has two rules of the name " + rule);
    skip(!is_lark_);
    Regex body = alternatives(false);
    rules_.bodies[place] = std::move(body);
    skip(false);
    if (!at_end() && peek() != '\n') refuse("has something behind the rule " + rule + " that is not understood");
  }

  void directive() {
    const std::string what = name();
    if (what != "import") refuse("has a directive that is not enforced here, %" + what);
    skip(false);
    if (!take(U"common.")) refuse("imports from something other than common");
    const std::string terminal = name();
    skip(false);
    std::string as = terminal;
    if (take(U"->")) {
      skip(false);
      as = name();
    }
    const auto found = common_terminals().find(terminal);
    if (found == common_terminals().end()) refuse("imports a terminal that is not known here, " + terminal);
    rules_.bodies[rules_.place_of(as)] = parse_regex(found->second, RegexSyntax::kPython, budget_);
  }

  Regex alternatives(bool nested) {
    if (++depth_ > kMaxDepth) refuse("nests too deep");
    std::vector<Regex> choices;
    do {
      skip(nested);
      choices.push_back(terms(nested));
      if (!nested && peek() != '|') goes_on();
    } while (take(U"|"));
    --depth_;
    return choices.size() == 1 ? std::move(choices[0]) : either(std::move(choices));
  }

  Regex terms(bool nested) {
    std::vector<Regex> parts;
    for (;;) {
      skip(nested);
      if (at_end() || peek() == '|' || peek() == ')' || peek() == '\n' || (is_lark_ && peek() == ']')) break;
      if (is_lark_ && take(U"->")) {  // what Lark's tree calls it
        skip(false);
        name();
        continue;
      }
      if (!nested && !is_lark_ && begins_rule()) break;
      budget_.spend(1);
      parts.push_back(repeated(atom()));
    }
    return parts.size() == 1 ? std::move(parts[0]) : sequence(std::move(parts));
  }
  bool begins_rule() const {
    size_t pos = pos_;
    while (pos < text_.size() && is_name(text_[pos])) ++pos;
    if (pos == pos_) return false;
    while (pos < text_.size() && (text_[pos] == ' ' || text_[pos] == '\t')) ++pos;
    return text_.compare(pos, 3, U"::=") == 0;
  }

  size_t number() {
    if (peek() < '0' || peek() > '9') refuse("has a repetition without its number");
    size_t value = 0;
    while (peek() >= '0' && peek() <= '9') value = std::min<size_t>(value * 10 + (text_[pos_++] - '0'), 1u << 30);
    if (value > kMaxRepeat) refuse("repeats too often");
    return value;
  }

  Regex repeated(Regex part) {
    for (size_t nested = 0;; ++nested) {
      if (nested > kMaxDepth) refuse("nests too deep");
      if (take(U"*")) {
        part = repeat(std::move(part), 0, kNoLimit);
      } else if (take(U"+")) {
        part = repeat(std::move(part), 1, kNoLimit);
      } else if (take(U"?")) {
        part = repeat(std::move(part), 0, 1);
      } else if (!is_lark_ && take(U"{")) {
        const size_t low = peek() == ',' ? 0 : number();
        size_t high = low;
        if (take(U",")) high = peek() == '}' ? kNoLimit : number();
        if (!take(U"}") || low > high) refuse("has a malformed repetition");
        part = repeat(std::move(part), low, high);
      } else if (is_lark_ && is_tilde()) {
        const size_t low = number();
        const size_t high = take(U"..") ? number() : low;
        if (low > high) refuse("has a malformed repetition");
        part = repeat(std::move(part), low, high);
      } else {
        return part;
      }
    }
  }
  bool is_tilde() {
    const size_t before = pos_;
    skip(false);
    if (take(U"~")) {
      skip(false);
      return true;
    }
    pos_ = before;
    return false;
  }

  char32_t escaped() {
    const char32_t c = text_[pos_++];
    const auto hex = [&](int digits) {
      char32_t value = 0;
      for (; digits > 0; --digits, ++pos_) {
        const char32_t digit = peek(), lower = digit | 0x20;
        const bool is_digit = digit >= '0' && digit <= '9';
        if (!is_digit && (lower < 'a' || lower > 'f')) refuse("has an escape without its hexadecimal digits");
        value = value * 16 + (is_digit ? digit - '0' : lower - 'a' + 10);
      }
      if (value > kLastCodePoint) refuse("has an escape beyond the code points");
      return value;
    };
    switch (c) {
      case 'n':
        return '\n';
      case 't':
        return '\t';
      case 'r':
        return '\r';
      case 'f':
        return '\f';
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'U':
        return hex(8);
      default:
        return c;
    }
  }

  std::u32string quoted() {
    std::u32string out;
    for (;;) {
      if (at_end() || peek() == '\n') refuse("has a text without its closing quote");
      if (take(U"\"")) return out;
      if (take(U"\\")) {
        if (at_end()) refuse("has a text without its closing quote");
        out.push_back(escaped());
      } else {
        out.push_back(text_[pos_++]);
      }
    }
  }

  Regex atom() {
    if (take(U"(")) {
      Regex inner = alternatives(true);
      skip(true);
      if (!take(U")")) refuse("has a group that does not end");
      return inner;
    }
    if (is_lark_ && take(U"[")) {
      Regex inner = alternatives(true);
      skip(true);
      if (!take(U"]")) refuse("has a bracket that does not end");
      return repeat(std::move(inner), 0, 1);
    }
    if (take(U"\"")) {
      const std::u32string low = quoted();
      if (is_lark_ && take(U"..")) {
        if (!take(U"\"")) refuse("has a range without its end");
        const std::u32string high = quoted();
        if (low.size() != 1 || high.size() != 1 || low[0] > high[0]) refuse("has a malformed range");
        return one_of({{low[0], high[0]}});
      }
      if (!is_lark_ || peek() != 'i' || is_name(peek(1))) return text(low);
      ++pos_;
      Regex regex;
      for (const char32_t c : low) {
        const char32_t other = c ^ 0x20;
        const bool is_letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        regex.parts.push_back(one_of(is_letter ? joined({{c, c}, {other, other}}) : SymbolSet{{c, c}}));
      }
      return regex;
    }
    if (!is_lark_ && peek() == '[') return one_of(bracket());
    if (!is_lark_ && take(U".")) return one_of({{0, kLastCodePoint}});
    if (is_lark_ && peek() == '/') return regex();
    if (!is_name(peek()))
      refuse("has a character that is not understood near its character " + std::to_string(pos_));
    const std::string called = name();
    if (is_lark_ && peek() == '{') refuse("has a template, which is not enforced here");
    const auto symbol = kFirstCall + static_cast<Symbol>(rules_.place_of(called));
    return one_of({{symbol, symbol}});
  }

  SymbolSet bracket() {
    ++pos_;
    const bool negated = take(U"^");
    SymbolSet set;
    const auto one = [&] { return take(U"\\") && !at_end() ? escaped() : text_[pos_++]; };
    while (!take(U"]")) {
      if (at_end()) refuse("has a bracket that does not end");
      const char32_t low = one();
      char32_t high = low;
      if (peek() == '-' && peek(1) != ']' && pos_ + 1 < text_.size()) {
        ++pos_;
        high = one();
      }
      if (high < low) refuse("has a range whose ends are out of order");
      set.emplace_back(low, high);
    }
    return negated ? complement(std::move(set)) : joined(std::move(set));
  }

  Regex regex() {
    std::u32string body;
    ++pos_;
    while (peek() != '/') {
      if (at_end() || peek() == '\n') refuse("has a regular expression that does not end");
      if (peek() == '\\' && peek(1) == '/') ++pos_;
      else if (peek() == '\\') body.push_back(text_[pos_++]);
      body.push_back(text_[pos_++]);
    }
    ++pos_;
    if (peek() >= 'a' && peek() <= 'z') refuse("has a regular expression with flags, which are not enforced here");
    Regex compiled;
    compiled.kind = Regex::Kind::kAutomaton;
    compiled.dfa = std::make_shared<const Dfa>(
        compile_regex(to_utf8(body), RegexSyntax::kPython, MatchWhat::kWhole, budget_));
    return compiled;
  }

  std::u32string text_;
  bool is_lark_;
  Budget& budget_;
  Rules rules_;
  size_t pos_ = 0, depth_ = 0;
};

void collect_calls(const Regex& regex, std::set<int32_t>& calls) {
  for (const auto& [low, high] : regex.set) {
    if (low >= kFirstCall) calls.insert(static_cast<int32_t>(low - kFirstCall));
  }
  for (const Regex& part : regex.parts) collect_calls(part, calls);
}

class Linker {
 public:
  Linker(Rules rules, Budget& budget) : rules_(std::move(rules)), budget_(budget), states_(rules_.names.size()) {}

  Program link(const std::string& start) {
    for (size_t i = 0; i < rules_.names.size(); ++i) {
      if (!rules_.bodies[i]) refuse("has no rule " + rules_.names[i]);
    }
    const int32_t first = rules_.place_of(start);
    if (!rules_.bodies[first]) refuse("has no rule " + start);
    for (size_t i = 0; i < rules_.names.size(); ++i)
      program_.text_rules.push_back(std::make_unique<TextRule>());
    compile(first);
    drop_endless();
    check_left();
    if (rule(first).empty()) refuse("matches no text");
    program_.text = program_.text_rules[first].get();
    return std::move(program_);
  }

 private:
  enum class State : uint8_t { kNew, kOpen, kDone };

  Dfa& rule(int32_t place) { return program_.text_rules[place]->text; }

  // Rules that a rule calls come first; where that is a ring, the call stays one.
  void compile(int32_t place) {
    if (states_[place] != State::kNew) return;
    if (++depth_ > 500) refuse("has too many rules in a row");
    states_[place] = State::kOpen;
    std::set<int32_t> calls;
    collect_calls(*rules_.bodies[place], calls);
    for (const int32_t call : calls) compile(call);
    inline_calls(*rules_.bodies[place]);
    const auto blame = budget_.blame("grammar");
    rule(place) = compile_regex(*rules_.bodies[place], MatchWhat::kWhole, budget_);
    states_[place] = State::kDone;
    --depth_;
  }

  static bool calls_something(const Dfa& dfa) {
    for (int state = 0; state < dfa.size(); ++state) {
      if (dfa.begin(state) != dfa.end(state) && (dfa.end(state) - 1)->high >= kFirstCall) return true;
    }
    return false;
  }

  void inline_calls(Regex& regex) {
    for (Regex& part : regex.parts) inline_calls(part);
    if (regex.set.size() != 1 || regex.set[0].first < kFirstCall) return;
    const auto callee = static_cast<int32_t>(regex.set[0].first - kFirstCall);
    if (states_[callee] != State::kDone || rule(callee).size() > kMaxInlined || calls_something(rule(callee)))
      return;
    Regex copy;
    copy.kind = Regex::Kind::kAutomaton;
    copy.dfa = std::make_shared<const Dfa>(rule(callee));
    regex = std::move(copy);
  }

  // Calls of rules that never end are no way on.
  void drop_endless() {
    std::set<int32_t> ends;
    const auto without_others = [&](const Dfa& dfa) {
      std::vector<Dfa::State> states(static_cast<size_t>(dfa.size()));
      for (int i = 0; i < dfa.size(); ++i) {
        states[i].label = dfa.label(i);
        for (const Dfa::Edge* edge = dfa.begin(i); edge != dfa.end(i); ++edge) {
          if (edge->low < kFirstCall) states[i].edges.push_back({edge->low, std::min(edge->high, kLastCodePoint), edge->to});
          for (Symbol call = std::max(edge->low, kFirstCall); call <= edge->high; ++call) {
            if (ends.contains(static_cast<int32_t>(call - kFirstCall)))
              states[i].edges.push_back({call, call, edge->to});
          }
        }
      }
      return Dfa(std::move(states));
    };
    for (bool more = true; more;) {
      more = false;
      for (int32_t i = 0; i < static_cast<int32_t>(program_.text_rules.size()); ++i) {
        budget_.spend(1 + static_cast<size_t>(rule(i).size()));
        if (!ends.contains(i) && !without_others(rule(i)).empty()) more |= ends.insert(i).second;
      }
    }
    for (const auto& text_rule : program_.text_rules) {
      text_rule->text = without_others(text_rule->text);
      text_rule->calls = calls_something(text_rule->text);
    }
  }

  // A rule that may call itself before it has read anything would never begin.
  void check_left() {
    const auto num_rules = static_cast<int32_t>(program_.text_rules.size());
    std::vector<bool> may_be_empty(static_cast<size_t>(num_rules), false);
    std::vector<std::set<int32_t>> left(static_cast<size_t>(num_rules));
    for (bool more = true; more;) {
      more = false;
      for (int32_t i = 0; i < num_rules; ++i) {
        const Dfa& dfa = rule(i);
        if (dfa.empty()) continue;
        std::vector<bool> seen(static_cast<size_t>(dfa.size()), false);
        std::vector<int32_t> work = {0};
        seen[0] = true;
        while (!work.empty()) {
          const int32_t state = work.back();
          work.pop_back();
          if (dfa.accepts(state) && !may_be_empty[i]) may_be_empty[i] = more = true;
          for (const Dfa::Edge* edge = dfa.begin(state); edge != dfa.end(state); ++edge) {
            for (Symbol call = std::max(edge->low, kFirstCall); call <= edge->high; ++call) {
              const auto callee = static_cast<int32_t>(call - kFirstCall);
              more |= left[i].insert(callee).second;
              if (!may_be_empty[callee] || seen[edge->to]) continue;
              seen[edge->to] = true;
              work.push_back(edge->to);
            }
          }
        }
      }
    }
    for (int32_t i = 0; i < num_rules; ++i) program_.text_rules[i]->may_be_empty = may_be_empty[i];
    std::vector<State> states(static_cast<size_t>(num_rules), State::kNew);
    const std::function<void(int32_t)> visit = [&](int32_t place) {
      if (states[place] == State::kOpen) refuse("recurses on the left in rule " + rules_.names[place]);
      if (states[place] == State::kDone) return;
      states[place] = State::kOpen;
      for (const int32_t callee : left[place]) visit(callee);
      states[place] = State::kDone;
    };
    for (int32_t i = 0; i < num_rules; ++i) visit(i);
  }

  Rules rules_;
  Budget& budget_;
  std::vector<State> states_;
  Program program_;
  int depth_ = 0;
};

}  // namespace

Program compile_ebnf(std::string_view utf8, Budget& budget) {
  const bool is_lark = utf8.find("::=") == std::string_view::npos;
  Rules rules = Parser(code_points(utf8), is_lark, budget).parse();
  return Linker(std::move(rules), budget).link(is_lark ? "start" : "root");
}

}  // namespace serval::grammar
