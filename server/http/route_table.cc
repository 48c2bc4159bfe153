#include "server/http/route_table.h"

#include "kernels/base/check.h"

namespace serval {

void RouteTable::add(Route route) {
  for (const Route& other : routes_) {
    SERVAL_CHECK(other.method != route.method || other.path != route.path, route.method, route.path);
  }
  routes_.push_back(std::move(route));
}

void RouteTable::add(std::vector<Route> routes) {
  for (Route& route : routes) add(std::move(route));
}

RouteTable::Match RouteTable::find(std::string_view method, std::string_view path) const {
  Match match;
  bool exact = false;  // an exact row hides prefix rows, whatever its method
  const auto consider = [&](const Route& route, std::string_view tail) {
    if (route.method == method || (route.method == "GET" && method == "HEAD")) {
      match.route = &route;
      match.path_tail = tail;
    }
    if (!match.allow.empty()) match.allow += ", ";
    match.allow += route.method == "GET" ? "GET, HEAD" : route.method;
  };
  for (const Route& route : routes_) {
    if (route.path != path) continue;
    exact = true;
    consider(route, {});
  }
  if (!exact) {
    for (const Route& route : routes_) {
      if (route.path.back() != '*') continue;
      const std::string_view prefix = std::string_view(route.path).substr(0, route.path.size() - 1);
      if (path.size() > prefix.size() && path.substr(0, prefix.size()) == prefix)
        consider(route, path.substr(prefix.size()));
    }
  }
  if (!match.allow.empty()) match.allow += ", OPTIONS";
  return match;
}

std::string RouteTable::hint(std::string_view path) const {
  constexpr std::string_view kBase = "/v1";
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  std::vector<std::string> candidates{std::string(path), std::string(kBase) + std::string(path)};
  if (path.starts_with(kBase)) candidates.emplace_back(path.substr(kBase.size()));
  constexpr size_t kMaxShownBytes = 128;
  for (const std::string& candidate : candidates) {
    if (candidate.size() <= kMaxShownBytes && !find("", candidate).allow.empty())
      return "Did you mean " + candidate + "?";
  }
  std::string all;
  for (const Route& route : routes_) {
    if (route.path.ends_with('/') || route.path.ends_with('*')) continue;
    all += (all.empty() ? "This server has " : ", ") + route.path;
  }
  return all + ".";
}

}  // namespace serval
