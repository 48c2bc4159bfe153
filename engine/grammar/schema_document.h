// A JSON Schema's text as a graph: which resource a subschema belongs to, and what its references point at
// (JSON Schema 2020-12 core, sections 8 and 9; RFC 3986, section 5). Nothing outside of the text is read.
#pragma once

#include <boost/json/value.hpp>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

namespace serval::grammar {

class SchemaDocument {
 public:
  // Keeps `root`.
  explicit SchemaDocument(boost::json::value root);

  const boost::json::value& root() const { return root_; }
  // The schema that `reference`, which stands in `schema`, names. Throws Refusal(keyword).
  const boost::json::value& resolve(const boost::json::value& schema, std::string_view reference,
                                    const std::string& keyword);
  // The same for a dynamic reference that can have one target only.
  const boost::json::value& resolve_dynamic(const boost::json::value& schema, std::string_view reference);

 private:
  void index(const boost::json::value& schema, const std::string& base);

  boost::json::value root_;
  std::map<std::string, const boost::json::value*, std::less<>> resources_;  // by absolute address
  std::map<std::string, const boost::json::value*, std::less<>> anchors_;    // by address#name
  std::map<std::string, int, std::less<>> dynamic_anchors_;                  // how many of a name
  std::unordered_map<const boost::json::value*, std::string> bases_;         // of each subschema
};

}  // namespace serval::grammar
