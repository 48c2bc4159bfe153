#include "server/service/name_breaker.h"

#include <algorithm>
#include <boost/json.hpp>
#include <utility>

#include "kernels/base/utf8.h"

namespace serval {
namespace {

namespace json = boost::json;

size_t first_character(std::string_view text) {
  size_t pos = 0;
  read_utf8(text, pos);
  return pos;
}

bool contains(const json::value& value, std::string_view part) {
  const auto in = [&](std::string_view text) { return text.find(part) != std::string_view::npos; };
  if (value.is_string()) return in(value.get_string());
  if (value.is_array()) {
    const json::array& list = value.get_array();
    return std::any_of(list.begin(), list.end(),
                       [&](const json::value& item) { return contains(item, part); });
  }
  if (!value.is_object()) return false;
  const json::object& object = value.get_object();
  return std::any_of(object.begin(), object.end(),
                     [&](const auto& member) { return in(member.key()) || contains(member.value(), part); });
}

}  // namespace

NameBreaker::NameBreaker(const std::vector<std::string>& names) {
  std::vector<std::pair<std::string_view, int32_t>> breakable;
  for (const std::string& name : names) {
    if (!name.empty() && first_character(name) < name.size()) breakable.emplace_back(name, 0);
  }
  has_any_ = !breakable.empty();
  trie_ = PrefixTrie(std::move(breakable));
}

std::vector<size_t> NameBreaker::places_in(std::string_view text) const {
  std::vector<size_t> places;
  for (size_t begin = 0; begin < text.size(); ++begin) {
    int32_t node = PrefixTrie::kRoot;
    bool is_name = false;
    size_t end = begin;
    while (end < text.size() && !is_name) {
      node = trie_.child(node, text[end]);
      if (node < 0) break;
      ++end;
      is_name = trie_.value(node) >= 0;
    }
    if (is_name) {
      places.push_back(begin + first_character(text.substr(begin)));
    } else if (node >= 0 && end == text.size()) {
      places.push_back(text.size());
      break;  // what begins later would be broken by the same
    }
  }
  return places;
}

std::string NameBreaker::broken(std::string_view text, std::string_view breaker) const {
  std::string out;
  size_t copied = 0;
  for (const size_t place : places_in(text)) {
    out += text.substr(copied, place - copied);
    out += breaker;
    copied = place;
  }
  return out += text.substr(copied);
}

bool NameBreaker::has_names(const json::value& value) const {
  if (value.is_string()) return !places_in(value.get_string()).empty();
  if (value.is_array()) {
    const json::array& list = value.get_array();
    return std::any_of(list.begin(), list.end(), [&](const json::value& item) { return has_names(item); });
  }
  if (!value.is_object()) return false;
  const json::object& object = value.get_object();
  return std::any_of(object.begin(), object.end(), [&](const auto& member) {
    return !places_in(member.key()).empty() || has_names(member.value());
  });
}

void NameBreaker::break_in(json::value& value, std::string_view breaker) const {
  if (value.is_string()) {
    value = broken(value.get_string(), breaker);
  } else if (value.is_array()) {
    for (json::value& item : value.get_array()) break_in(item, breaker);
  } else if (value.is_object()) {
    json::object members(value.storage());
    for (auto& member : value.get_object()) {
      break_in(member.value(), breaker);
      members.emplace(broken(member.key(), breaker), std::move(member.value()));
    }
    value = std::move(members);
  }
}

Result<std::string> NameBreaker::break_names(json::object& context) const {
  if (!has_any_) return std::string();
  json::value texts(std::move(context));
  std::string breaker;
  if (has_names(texts)) {
    for (char32_t c = 0xFDD0; c <= 0xFDEF; ++c) {
      breaker.clear();
      append_utf8(c, breaker);
      if (!contains(texts, breaker)) break;
      breaker.clear();
    }
    if (breaker.empty())
      return invalid("messages", "invalid_messages",
                     "messages use every character that Unicode reserves for other use.");
    break_in(texts, breaker);
  }
  context = std::move(texts.get_object());
  return breaker;
}

}  // namespace serval
