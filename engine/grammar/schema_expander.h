// Schemas to forms, keyword by keyword; each conjunction once.
#pragma once

#include <map>
#include <set>
#include <string>

#include "engine/grammar/schema_document.h"
#include "engine/grammar/schema_forms.h"

namespace serval::grammar {

class SchemaExpander {
 public:
  SchemaExpander(SchemaDocument& document, Budget& budget);

  Forms& forms() { return forms_; }
  const Form& expand(NodeId node);
  Form expand_schema(const boost::json::value& schema);

 private:
  using Object = boost::json::object;
  // While a schema is being expanded.
  struct Inside {
    Inside(SchemaExpander& expander, const void* schema) : expander(expander), schema(schema) {
      expander.in_progress_.insert(schema);
      ++expander.depth_;
    }
    ~Inside() {
      expander.in_progress_.erase(schema);
      --expander.depth_;
    }
    SchemaExpander& expander;
    const void* schema;
  };
  Form expand_value(const boost::json::value& value);
  Form plain_keywords(const Object& schema);
  SharedDfa string_keywords(const Object& schema);
  SharedDfa number_keywords(const Object& schema);
  void object_keywords(const Object& schema, Form& form);
  void array_keywords(const Object& schema, Form& form);
  Form applicators(const boost::json::value& schema, const Object& object, Form form);
  Form any_of(const boost::json::array& choices);
  Form one_of(const boost::json::array& choices);
  Form conditional(const Object& schema);
  Form dependent(const std::string& name, const boost::json::value& schema);
  void unevaluated_properties(const boost::json::value& schema, Form& form);
  void unevaluated_items(const boost::json::value& schema, Form& form);

  SchemaDocument& document_;
  Forms forms_;
  bool tracks_evaluated_ = false;
  std::map<NodeId, Form> expanded_;
  std::map<const boost::json::value*, Form> schemas_;
  std::set<const void*> in_progress_;
  int depth_ = 0;
};

}  // namespace serval::grammar
