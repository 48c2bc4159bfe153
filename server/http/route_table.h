// Which requests are answered, by whom, under which rules. A route's rules (key, body, thread, what a closed
// client means) are columns of its row: nothing is decided by looking at a path a second time. Immutable once
// the server runs.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace serval {

class HttpExchange;

enum class Access : uint8_t { kKey, kOpen };
enum class BodyKind : uint8_t { kNone, kJson, kForm };
// kInline handlers run on the connection's I/O thread and must not block; kTextPool ones may think
// (templates, tokenising, JSON).
enum class RunsOn : uint8_t { kInline, kTextPool };

struct Route {
  std::string method;  // "GET" answers HEAD too
  std::string path;    // compared byte for byte; ending in '*': a prefix, what follows is
                       // HttpRequest::path_tail (not empty)
  std::function<void(std::shared_ptr<HttpExchange>)> handler;
  BodyKind body = BodyKind::kNone;
  RunsOn runs_on = RunsOn::kInline;
  Access access = Access::kKey;
  // A client that closes its sending side has left: the answer is not finished for nobody.
  bool ends_with_client = false;
  // Asked all the time, by who must hear something: answered however many connections are open, and unless
  // refused worth no line of the log above debug.
  bool probe = false;
};

class RouteTable {
 public:
  void add(Route route);
  // Every row of `routes`, in order. Two rows with one method and path are our own mistake.
  void add(std::vector<Route> routes);

  struct Match {
    const Route* route = nullptr;
    std::string_view path_tail;
    std::string allow;  // when the path is known but not with this method: the methods it has
  };
  Match find(std::string_view method, std::string_view path) const;
  // For whoever asked for a path that is not here: the one that was probably meant ("/v1" left out, or given
  // twice; a slash too many), else all there are.
  std::string hint(std::string_view path) const;
  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

}  // namespace serval
