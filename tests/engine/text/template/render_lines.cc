// Renders cases from standard input for compare_with_jinja2.py: a JSON object {"template", "context"} a line
// in, {"status", "text"} a line out. A tool, not a test.
#include <boost/json.hpp>
#include <iostream>
#include <string>

#include "tests/engine/text/template/template_cases.h"

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const boost::json::value row = boost::json::parse(line);
    const serval::Result<std::string> rendered =
        serval::render_once(row.at("template").as_string(), row.at("context").as_object());
    boost::json::object out;
    out["status"] = rendered.ok() ? "ok" : rendered.error().code;
    out["text"] = rendered.ok() ? rendered.value() : rendered.error().message;
    std::cout << boost::json::serialize(out) << '\n';
  }
}
