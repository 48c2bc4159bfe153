// Filters that work on lists and dictionaries, or on values of any type.
#include <algorithm>

#include "engine/text/jinja/access.h"
#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/format.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/parameters.h"
#include "engine/text/jinja/pieces.h"
#include "engine/text/jinja/unicode.h"

namespace serval::jinja {
namespace {

Value default_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("default", args, {"default_value", "boolean"});
  if (!v.is_undefined() && !(p.flag(1, false) && !is_true(v))) return v;
  return p[0] ? *p[0] : rt.text(std::string());
}

Value length_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("length", args, {});
  if (v.is_undefined()) return Value::of(0);
  if (v.is_text()) {
    return static_cast<Int>(v.text().ascii ? v.str().size() : num_chars(v.str()));
  }
  if (v.is_dict()) return static_cast<Int>(v.dict().entries.size());
  if (v.is_sequence() && v.sequence().kind != Sequence::Kind::kGenerator) {
    return static_cast<Int>(v.sequence().items.size());
  }
  if (v.is_object()) {
    // A loop has a length, and it is the attribute of that name.
    const Value length =
        v.object().type_name() == "LoopContext" ? v.object().attribute(rt, "length") : Value();
    if (length.is_int()) return length;
  }
  fail("object of type '" + std::string(type_name(v)) + "' has no len()");
}

Value list_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("list", args, {});
  return rt.list(iterate(rt, v));
}

Value items_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("items", args, {});
  if (v.is_undefined()) return rt.generator({});
  if (!v.is_dict()) fail("Can only get item pairs from a mapping.");
  return rt.generator(iterate(rt, bind_method(v, "items").object().call(rt, {})));
}

Value first_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("first", args, {});
  // A generator gives up one item only.
  if (v.is_sequence()) {
    const Sequence& s = v.sequence();
    if (s.kind == Sequence::Kind::kGenerator && s.cursor < s.items.size()) return s.items[s.cursor++];
    if (s.kind != Sequence::Kind::kGenerator && !s.items.empty()) return s.items[0];
    return Value::undefined("No first item, sequence was empty.");
  }
  if (v.is_text() && !v.str().empty()) return rt.text(v.str().substr(0, char_bytes(v.str(), 0)));
  const std::vector<Value> items = iterate(rt, v);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items[0];
}

Value last_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("last", args, {});
  if (v.is_sequence() && v.sequence().kind == Sequence::Kind::kGenerator)
    fail("'generator' object is not reversible");
  if (v.is_text() && !v.str().empty()) return subscript(rt, v, Value::of(-1));
  const std::vector<Value> items = iterate(rt, v);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value reverse_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("reverse", args, {});
  if (v.is_text()) return slice(rt, v, None{}, None{}, Value::of(-1));
  std::vector<Value> items = iterate(rt, v);
  std::reverse(items.begin(), items.end());
  const bool was_generator = v.is_sequence() && v.sequence().kind == Sequence::Kind::kGenerator;
  return was_generator ? rt.list(std::move(items)) : rt.generator(std::move(items));
}

Value join_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("join", args, {"d", "attribute"});
  const std::string separator = p[0] ? str_of(rt, *p[0]) : "";
  const AttributePath path(rt, p[1]);
  TextBuilder out(rt);
  bool first = true;
  for (const Value& item : iterate(rt, v)) {
    rt.step();
    if (!std::exchange(first, false)) out.append(separator);
    append_str(out, path.of(rt, item));
  }
  return rt.text(out.take());
}

// ---- one by one

Value map_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  if (!is_true(v)) return rt.generator({});
  std::vector<Value> out;
  if (args.positional.empty()) {
    const Parameters p("map", args, {"attribute", "default"});
    const AttributePath path(rt, &p.required(0));
    for (const Value& item : iterate(rt, v)) {
      rt.step();
      out.push_back(path.of(rt, item, p.present(1)));
    }
    return rt.generator(std::move(out));
  }
  const Value& name = args.positional[0];
  if (!name.is_text()) fail("map() takes the name of a filter");
  const CallArgs rest{{args.positional.begin() + 1, args.positional.end()}, args.keywords};
  for (const Value& item : iterate(rt, v)) out.push_back(apply_filter(rt, name.str(), item, rest));
  return rt.generator(std::move(out));
}

template <bool by_attribute, bool keep>
Value select_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  if (!is_true(v)) return rt.generator({});
  constexpr size_t kTest = by_attribute ? 1 : 0;
  if (by_attribute && args.positional.empty()) fail("Missing parameter for attribute name");
  const AttributePath path(rt, by_attribute ? &args.positional[0] : nullptr);
  const bool has_test_name = args.positional.size() > kTest;
  CallArgs rest;
  if (has_test_name) {
    if (!args.positional[kTest].is_text()) fail("the name of a test is a str");
    rest = {{args.positional.begin() + kTest + 1, args.positional.end()}, args.keywords};
  }
  std::vector<Value> out;
  for (const Value& item : iterate(rt, v)) {
    rt.step();
    const Value subject = path.of(rt, item);
    const bool passes =
        has_test_name ? apply_test(rt, args.positional[kTest].str(), subject, rest) : is_true(subject);
    if (passes == keep) out.push_back(item);
  }
  return rt.generator(std::move(out));
}

// ---- in order

// What sort, unique, min, max and groupby compare: an item's attribute, texts without regard to case unless
// asked.
class SortKey {
 public:
  // `listed`: a key is the list of all comma-separated attributes, so that equal keys, even of types without
  // order, compare.
  SortKey(Runtime& rt, const Value* attribute, bool case_sensitive, bool listed = false)
      : case_sensitive_(case_sensitive), listed_(listed) {
    if (listed && attribute && attribute->is_text()) {
      for (std::string_view part : split_on(rt, attribute->str(), ",", -1)) {
        const Value name = rt.text(part);
        paths_.emplace_back(rt, &name);
      }
    } else {
      paths_.emplace_back(rt, attribute);
    }
  }

  Value of(Runtime& rt, const Value& item, const Value* fallback = nullptr) const {
    if (!listed_) return folded(rt, paths_[0].of(rt, item, fallback));
    std::vector<Value> keys;
    for (const AttributePath& path : paths_) keys.push_back(folded(rt, path.of(rt, item)));
    return rt.list(std::move(keys));
  }

 private:
  Value folded(Runtime& rt, Value key) const {
    return case_sensitive_ || !key.is_text() ? key : rt.text(to_lower(key.str()));
  }

  const bool case_sensitive_;
  const bool listed_;
  std::vector<AttributePath> paths_;
};

using Keyed = std::pair<Value, Value>;  // key, item

std::vector<Keyed> with_keys(Runtime& rt, std::vector<Value> items, const SortKey& key,
                             const Value* fallback = nullptr) {
  std::vector<Keyed> keyed;
  keyed.reserve(items.size());
  for (Value& item : items) {
    rt.step();
    Value k = key.of(rt, item, fallback);
    keyed.emplace_back(std::move(k), std::move(item));
  }
  return keyed;
}

// Stable in both directions, as Python's sorted(reverse=True) is.
void sort_keyed(Runtime& rt, std::vector<Keyed>& keyed, bool reverse) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? less(rt, b.first, a.first) : less(rt, a.first, b.first);
  });
}

std::vector<Value> items_of(std::vector<Keyed> keyed) {
  std::vector<Value> items;
  items.reserve(keyed.size());
  for (Keyed& pair : keyed) items.push_back(std::move(pair.second));
  return items;
}

Value sort_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("sort", args, {"reverse", "case_sensitive", "attribute"});
  std::vector<Keyed> keyed = with_keys(rt, iterate(rt, v), SortKey(rt, p.present(2), p.flag(1, false), true));
  sort_keyed(rt, keyed, p.flag(0, false));
  return rt.list(items_of(std::move(keyed)));
}

Value dictsort_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("dictsort", args, {"case_sensitive", "by", "reverse"});
  require_defined(v);
  if (!v.is_dict()) fail("dictsort() takes a mapping, not " + std::string(type_name(v)));
  const std::string_view by = p[1] ? p.text(1) : "key";
  if (by != "key" && by != "value") fail("You can only sort by either \"key\" or \"value\"");
  const Value place = Value::of(by == "key" ? 0 : 1);
  std::vector<Value> pairs = iterate(rt, bind_method(v, "items").object().call(rt, {}));
  std::vector<Keyed> keyed = with_keys(rt, std::move(pairs), SortKey(rt, &place, p.flag(0, false)));
  sort_keyed(rt, keyed, p.flag(2, false));
  return rt.list(items_of(std::move(keyed)));
}

Value unique_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("unique", args, {"case_sensitive", "attribute"});
  std::vector<Keyed> keyed = with_keys(rt, iterate(rt, v), SortKey(rt, p.present(1), p.flag(0, false)));
  // A dictionary keeps the first of equal keys, in order of appearance; its values say which items those
  // were.
  std::vector<std::pair<Value, Value>> first_seen;
  for (size_t i = keyed.size(); i-- > 0;) first_seen.emplace_back(keyed[i].first, static_cast<Int>(i));
  const Value seen = rt.dict(std::move(first_seen));
  std::vector<bool> is_first(keyed.size());
  for (const auto& entry : seen.dict().entries) is_first[static_cast<size_t>(entry.second.integer())] = true;
  std::vector<Value> out;
  for (size_t i = 0; i < keyed.size(); ++i) {
    if (is_first[i]) out.push_back(std::move(keyed[i].second));
  }
  return rt.generator(std::move(out));
}

template <bool largest>
Value extreme_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p(largest ? "max" : "min", args, {"case_sensitive", "attribute"});
  std::vector<Keyed> keyed = with_keys(rt, iterate(rt, v), SortKey(rt, p.present(1), p.flag(0, false)));
  if (keyed.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  for (size_t i = 1; i < keyed.size(); ++i) {
    const bool better =
        largest ? less(rt, keyed[best].first, keyed[i].first) : less(rt, keyed[i].first, keyed[best].first);
    if (better) best = i;
  }
  return keyed[best].second;
}

Value groupby_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("groupby", args, {"attribute", "default", "case_sensitive"});
  const bool case_sensitive = p.flag(2, false);
  const AttributePath path(rt, &p.required(0));
  std::vector<Keyed> keyed =
      with_keys(rt, iterate(rt, v), SortKey(rt, &p.required(0), case_sensitive), p.present(1));
  sort_keyed(rt, keyed, false);
  std::vector<Value> groups;
  for (size_t from = 0; from < keyed.size();) {
    size_t to = from;
    std::vector<Value> members;
    for (; to < keyed.size() && equal(rt, keyed[to].first, keyed[from].first); ++to)
      members.push_back(keyed[to].second);
    // A group is named as its first member spells it.
    Value name = case_sensitive ? keyed[from].first : path.of(rt, members[0], p.present(1));
    groups.push_back(rt.sequence(Sequence::Kind::kGroup, {std::move(name), rt.list(std::move(members))}));
    from = std::max(to, from + 1);
  }
  return rt.list(std::move(groups));
}

Value sum_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("sum", args, {"attribute", "start"});
  const AttributePath path(rt, p.present(0));
  Value total = p[1] ? *p[1] : Value::of(0);
  if (total.is_text()) fail("sum() can't sum strings");
  for (const Value& item : iterate(rt, v)) {
    rt.step();
    total = binary(rt, Binary::kAdd, total, path.of(rt, item));
  }
  return total;
}

// ---- in portions

Value batch_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("batch", args, {"linecount", "fill_with"});
  p.required(0);
  const Int size = p.integer(0, 0);
  std::vector<Value> rows, row;
  for (const Value& item : iterate(rt, v)) {
    rt.step();
    if (static_cast<Int>(row.size()) == size) rows.push_back(rt.list(std::exchange(row, {})));
    row.push_back(item);
  }
  if (!row.empty()) {
    if (p.present(1) && static_cast<Int>(row.size()) < size) {
      rt.require_size(size > INT32_MAX ? SIZE_MAX : static_cast<size_t>(size) * sizeof(Value));
      row.resize(static_cast<size_t>(size), *p.present(1));
    }
    rows.push_back(rt.list(std::move(row)));
  }
  return rt.generator(std::move(rows));
}

Value slice_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("slice", args, {"slices", "fill_with"});
  p.required(0);
  const std::vector<Value> items = iterate(rt, v);
  const Int slices = p.integer(0, 0);
  if (slices == 0) fail("division by zero");
  rt.require_size(slices > INT32_MAX ? SIZE_MAX
                                     : static_cast<size_t>(std::max(slices, Int{0})) * sizeof(Value));
  const auto count = static_cast<int64_t>(slices);
  const auto length = static_cast<int64_t>(items.size());
  std::vector<Value> columns;
  int64_t from = 0;
  for (int64_t i = 0; i < count; ++i) {
    rt.step();
    const bool extra = i < length % count;
    const int64_t to = from + length / count + extra;
    std::vector<Value> column(items.begin() + from, items.begin() + to);
    if (p.present(1) && !extra) column.push_back(*p.present(1));
    columns.push_back(rt.list(std::move(column)));
    from = to;
  }
  return rt.generator(std::move(columns));
}

Value attr_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("attr", args, {"name"});
  // Attributes only: a dictionary's keys do not count.
  if (v.is_dict()) return bind_method(v, p.text(0));
  return attribute(rt, v, p.text(0));
}

struct NamedFilter {
  std::string_view name;
  Filter filter;
};

constexpr NamedFilter kSequenceFilters[] = {
    {"attr", attr_filter},
    {"batch", batch_filter},
    {"count", length_filter},
    {"d", default_filter},
    {"default", default_filter},
    {"dictsort", dictsort_filter},
    {"first", first_filter},
    {"groupby", groupby_filter},
    {"items", items_filter},
    {"join", join_filter},
    {"last", last_filter},
    {"length", length_filter},
    {"list", list_filter},
    {"map", map_filter},
    {"max", extreme_filter<true>},
    {"min", extreme_filter<false>},
    {"reject", select_filter<false, false>},
    {"rejectattr", select_filter<true, false>},
    {"reverse", reverse_filter},
    {"select", select_filter<false, true>},
    {"selectattr", select_filter<true, true>},
    {"slice", slice_filter},
    {"sort", sort_filter},
    {"sum", sum_filter},
    {"unique", unique_filter},
};

}  // namespace

Filter find_sequence_filter(std::string_view name) {
  const auto at = std::find_if(std::begin(kSequenceFilters), std::end(kSequenceFilters),
                               [&](const NamedFilter& f) { return f.name == name; });
  return at == std::end(kSequenceFilters) ? nullptr : at->filter;
}

}  // namespace serval::jinja
