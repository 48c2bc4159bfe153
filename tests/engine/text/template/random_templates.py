"""Random templates for compare_with_jinja2.py: small programs over small values, most of which mean something."""

ATOMS = ["1", "0", "-3", "2.5", "0.0", "true", "false", "none", "'ab'", "''", "'a b,c'", "'é😀'", "'Ab-cD eF'", "[1, 2, 3]", "[]", "['b', 'A', 'c']",
         "(1, 'x')", "{'a': 1, 'b': [2]}", "{}", "x", "s", "l", "d", "nope", "d.a", "l[0]", "(range(4) | list)", "[[1, 2], [3]]", "people", "10", "'12'", "'  pad '"]
FILTERS = ["upper", "lower", "trim", "length", "list", "first", "last", "string", "int", "float", "abs", "join", "join(',')", "sort", "reverse", "unique",
           "tojson", "tojson(indent=1)", "default('z')", "default('z', true)", "capitalize", "title", "replace('a', 'X')", "map('string')", "select",
           "reject", "select('odd')", "map('upper')", "sum", "min", "max", "items", "dictsort", "round", "round(1)", "indent(2)", "batch(2)", "slice(2)",
           "map(attribute='name')", "selectattr('age')", "selectattr('age', '>', 26)", "groupby('age')", "sort(attribute='name')", "e", "safe", "center(7)",
           "sort(reverse=true)", "urlencode", "rejectattr('age', 'eq', 30)", "map('length')", "count", "map('first')", "format(1)"]
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "iterable", "sequence", "odd", "even", "true", "false",
         "divisibleby 2", "eq 1", "in [1, 'ab']", "lower", "upper", "callable", "sameas none", "gt 1"]
METHODS = ["upper()", "strip()", "split()", "split(' ')", "split(',', 1)", "startswith('a')", "endswith('b')", "replace('a', 'b')", "title()", "items()",
           "keys()", "values()", "get('a')", "get('q', 7)", "count('a')", "index(2)", "find('b')", "join(['x', 'y'])", "capitalize()", "isdigit()", "lstrip('a')",
           "splitlines()", "zfill(4)", "partition('b')", "format(1, 2)", "a", "b", "items", "rsplit(none, 1)", "name", "q", "center(5)"]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">", "<=", ">=", "and", "or", "in", "not in"]
CONTEXT = {"x": 7, "s": "Some text <b>\n", "l": [3, 1, 2], "d": {"a": {"n": 1}, "k": "v", "items": 5},
           "people": [{"name": "Bo", "age": 30}, {"name": "al", "age": 25}, {"name": "Cy", "age": 30}]}


def expression(r, depth=0):
    kind = r.randrange(12) if depth < 4 else 0
    sub = lambda: expression(r, depth + 1)
    if kind <= 2:
        return r.choice(ATOMS)
    if kind == 3:
        return f"({sub()} {r.choice(BINARY)} {sub()})"
    if kind == 4:
        return f"({sub()} | {r.choice(FILTERS)})"
    if kind == 5:
        return f"({sub()} | {r.choice(FILTERS)} | {r.choice(FILTERS)})"
    if kind == 6:
        return f"({sub()} is {r.choice(['', 'not '])}{r.choice(TESTS)})"
    if kind == 7:
        return f"({sub()}).{r.choice(METHODS)}"
    if kind == 8:
        return f"({sub()})[{r.choice(['0', '-1', '1:', ':-1', '::-1', '::2', '1:2', sub(), repr('a')])}]"
    if kind == 9:
        return f"({sub()} if {sub()} else {sub()})"
    if kind == 10:
        return r.choice(["[{}, {}]", "({}, {})", "{{'a': {}, 'k': {}}}", "({} ~ {})", "({} < {})"]).format(sub(), sub())
    return f"({r.choice(['-', 'not ', '+'])}{sub()})"


def statement(r, depth=0):
    kind = r.randrange(12) if depth < 3 else 0
    body = lambda: "".join(statement(r, depth + 1) for _ in range(r.randrange(1, 4)))
    open_, close = r.choice(["{%", "{%", "{%-", "{%+"]), r.choice(["%}", "%}", "-%}", "+%}"])
    tag = lambda text: f"{open_} {text} {close}"
    if kind <= 3:
        return r.choice(["{{ %s }}", "{{- %s }}", "{{ %s -}}"]) % expression(r, 2)
    if kind == 4:
        return r.choice([" ", "\n", "  \n  ", "text", "\n  ", "{# c #}", "{#- c -#}", "a\n"])
    if kind == 5:
        return tag(f"if {expression(r, 2)}") + body() + r.choice(["", tag("else") + body(), tag(f"elif {expression(r, 2)}") + body()]) + tag("endif")
    if kind == 6:
        condition = r.choice(["", "", f" if {expression(r, 3)}"])
        inner = r.choice(["", "{{ loop.index }}", "{{ i }}", "{{ loop.last }}", "{{ loop.nextitem }}", "{% if loop.first %}{% continue %}{% endif %}", "{{ loop.length }}"])
        return tag(f"for {r.choice(['i', 'i', 'i', 'x', 'a, b'])} in {expression(r, 2)}{condition}") + inner + body() + r.choice(["", tag("else") + body()]) + tag("endfor")
    if kind == 7:
        return tag(f"set {r.choice(['x', 's', 'v', 'nope', 'v, x'])} = {expression(r, 2)}")
    if kind == 8:
        return tag("set v") + body() + tag("endset") + "{{ v }}"
    if kind == 9:
        return tag("macro m(p, q=x)") + body() + r.choice(["{{ p }}{{ q }}", "{{ caller() if caller else '' }}", "{{ varargs }}"]) + tag("endmacro") + "{{ m(%s) }}" % expression(r, 3)
    if kind == 10:
        return "{% set ns = namespace(v=" + expression(r, 3) + ") %}" + tag("for i in l") + "{% set ns.v = " + expression(r, 3) + " %}" + tag("endfor") + "{{ ns.v }}"
    return r.choice([tag("filter upper") + body() + tag("endfilter"), tag("with v = 1") + body() + tag("endwith"), tag("generation") + body() + tag("endgeneration")])


def template(r):
    return expression_template(r) if r.random() < 0.6 else "".join(statement(r) for _ in range(r.randrange(1, 6)))


def expression_template(r):
    return "{{ " + expression(r) + " }}"
