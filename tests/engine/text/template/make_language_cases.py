"""Writes language_cases.jsonl: the templates below with what Python's Jinja2 makes of them. One feature a line; `None` as a result
stands for a refusal. Usage: python make_language_cases.py (see reference.py)."""

import json
import pathlib

from reference import render

PEOPLE = {"people": [{"name": "Bo", "age": 30, "tags": ["x"]}, {"name": "al", "age": 25, "tags": []}, {"name": "Cy", "age": 30}]}
TOOL = {"tool": {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}}

CASES = [
    # white space
    ("a\n{% if true %}\n  b\n{% endif %}\nc\n", {}),
    ("  {% set x = 1 %}\n  x{{ x }}\n\n", {}),
    ("  {%+ if true %}x{% endif +%}\n y", {}),
    ("a  {%- if true -%}  b  {%- endif -%}  c", {}),
    ("a {{- ' b ' -}} \n c {#- gone -#} d", {}),
    ("a\n   {# comment #}   \nb{# two\nlines #}\nc", {}),
    ("a\r\nb\rc\n{{ 'x\r\ny' }}\r\n", {}),
    ("{% raw %}\n {{ not }} {% this %} {% endraw %}\n x", {}),
    ("  {%- raw -%}  {{ a }}  {%- endraw -%}  x", {}),
    ("{{ 'a' }}  {% if true %} b {% endif %}\n", {}),
    ("\n\n{{ 1 }}\n\n", {}),
    ("x {%- for i in range(3) %}\n{{ i }}\n{%- endfor %}", {}),
    # literals
    ("{{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1.5e3 }} {{ 2e-7 }} {{ 1e16 }} {{ 123456789.125 }} {{ 1e22 }}", {}),
    (r"{{ 'a\tb\\c\'d\x41\u00e9\U0001F600\101\q' }}", {}),
    ("{{ \"double 'single'\" }} {{ 'a' 'b' \"c\" }}", {}),
    ("{{ [1, 'a', 2.0, true, none, [], {}, (), (1,), (1, 2)] }}", {}),
    ("{{ {'a': 1, 2: 'b', 'nested': {'x': [1]}} }}", {}),
    ("{{ {'a': 1, 'b': 2, 'a': 3} }} {{ {1: 'a', 1.0: 'b', true: 'c'} }}", {}),
    ("{{ \"it's\" | list | length }} {{ [\"it's\", 'say \"x\"', 'both \\' \"', 'tab\\t', 'é', '\\u200b'] }}", {}),
    ("{{ true }} {{ True }} {{ none }} {{ None }} {{ null }}|{{ nope }}", {}),
    # arithmetic
    ("{{ 7 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7.5 % 2 }} {{ -7.5 // 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }}", {}),
    ("{{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ 10 - 5 - 2 }}", {}),
    ("{{ 0.1 + 0.2 }} {{ 1 / 3 }} {{ 100.0 }} {{ 1e100 }} {{ 5 * 1.0 }} {{ 3 - 3.0 }} {{ true + 1 }} {{ -0.0 }}", {}),
    ("{{ 'ab' * 3 }} {{ 2 * [1, 2] }} {{ (1,) + (2,) }} {{ [1] + [2] }} {{ 'x' * -1 }}|", {}),
    ("{{ 'a' ~ 1 ~ none ~ true ~ [1] ~ 2.0 ~ nope }}", {}),
    ("{{ 1 + 'a' }}", {}), ("{{ 'a' + 1 }}", {}), ("{{ 1 / 0 }}", {}), ("{{ nope + 1 }}", {}), ("{{ none + 'a' }}", {}),
    ("{{ 9223372036854775807 + 1 }} {{ n }} {{ n | tojson }}", {"n": 18446744073709551615}),
    ("{{ '%s is %d or %5.2f, %r %%' % ('pi', 3, 3.14159, 'x') }} {{ '%(a)s' % {'a': 1} }} {{ '%05d|%-5s|%+d' % (42, 'ab', 7) }}", {}),
    # comparison and logic
    ("{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 'a' == 1 }} {{ none == none }}", {}),
    ("{{ 1 in [1, 2] }} {{ 'b' in 'abc' }} {{ 'a' in {'a': 1} }} {{ 3 not in (1, 2) }} {{ not 1 in [2] }} {{ '' in '' }}", {}),
    ("{{ [1, [2]] == [1, [2]] }} {{ {'a': 1} == {'a': 1.0} }} {{ (1,) == [1] }} {{ range(3) == [0, 1, 2] }} {{ nope == nada }}", {}),
    ("{{ '' or 'x' }} {{ 'a' and 'b' }} {{ 0 or none }} {{ not '' }} {{ not [0] }} {{ 1 and 0 or 2 }}", {}),
    ("{{ 1 < 'a' }}", {}), ("{{ nope < 1 }}", {}), ("{{ 'a' in none }}", {}), ("{{ 1 in 'abc' }}", {}),
    ("{{ 'y' if 1 else 'n' }} {{ 'y' if 0 }}|{{ 'a' if 0 else 'b' if 0 else 'c' }} {{ ('x' if 0) is defined }}", {}),
    # items, attributes, slices
    ("{{ d.a }} {{ d['a'] }} {{ d.b }}|{{ d['b'] }}|{{ d.items is defined }} {{ d['items'] is defined }} {{ d['keys'] is callable }}", {"d": {"a": 1}}),
    ("{{ d['items'] }} {{ d.items is callable }} {{ d.items == d['items'] }}", {"d": {"items": [1]}}),
    ("{{ l[0] }} {{ l[-1] }} {{ l[5] }}|{{ l.0 }} {{ l[1:] }} {{ l[::-1] }} {{ l[:-1] }} {{ l[-2:] }} {{ l[::2] }} {{ l[10:] }}", {"l": [1, 2, 3]}),
    ("{{ s[0] }} {{ s[-1] }} {{ s[1:3] }} {{ s[::-1] }} {{ s[::2] }} {{ s | length }} {{ s[3:1:-1] }}", {"s": "añb😀c"}),
    ("{{ (1, 2, 3)[1:] }} {{ 'abc'[9] }}|{{ none[0] }}|{{ none.x }}|{{ 5['x'] }}|", {}),
    ("{{ nope.x }}", {}), ("{{ nope['x'] }}", {}), ("{{ d.a.b.c }}", {"d": {}}), ("{{ x[1:] }}", {"x": None}), ("{{ [1][::0] }}", {}),
    ("{{ ''.__class__ }}|{{ {}.__class__ }}|{{ [].__len__ }}|{{ d['__class__'] }}", {"d": {}}),
    ("{{ ''.__class__.__mro__ }}", {}), ("{{ range.__globals__ }}|", {}), ("{{ [].append(1) }}", {}), ("{{ {}.pop('x') }}", {}),
    # The sandbox hides what would change a value: undefined when it is read, an error when it is called.
    ("{% set q = namespace(ids=[]) %}{% set _ = q.ids.append('x') %}{{ q.ids }}", {}), ("{{ [1, 2].pop(0) }}", {}),
    ("{{ [2, 1].sort() }}", {}), ("{{ {'x': 1}.update({}) }}", {}), ("{{ {}.setdefault('x', 1) }}", {}), ("[{{ [1].append }}]", {}),
    ("{{ [1].append is defined }}{{ [1]['append'] is defined }}{{ {}.update is defined }}{{ [1].pop is callable }}", {}),
    ("{{ [].append(1) if false else 2 }}", {}), ("{{ [1].append or 3 }}{{ [1].append | default('d') }}", {}),
    ("{% set d = {'pop': 5} %}{{ d['pop'] }}[{{ d.pop }}]", {}), ("{{ d['pop'] }}[{{ d.pop }}]{{ d.items.x }}", {"d": {"pop": 5, "items": 6}}),
    ("{{ [1].copy() + [2] }}{{ [1, 1].count(1) }}{{ [3, 4].index(4) }}", {}),
    ("{{ {'a': 1}.update({}) is defined }}", {}),
    # methods of texts
    ("{{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abcba'.lstrip('ab') }}|{{ 'abc  '.rstrip() }}|{{ '\\u3000é\\n'.strip() }}", {}),
    ("{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b  c '.rsplit(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'aaa'.rsplit('aa', 1) }} {{ 'aXbXc'.rsplit('X') }}", {}),
    ("{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.find('c') }} {{ 'abc'.find('x') }} {{ 'abcabc'.rfind('b') }} {{ 'aXbX'.count('X') }} {{ 'abc'.index('b') }}", {}),
    ("{{ 'abc'.replace('b', 'X') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'ab'.replace('', '-') }} {{ 'éé'.replace('é', 'e') }}", {}),
    ("{{ 'aBc'.upper() }} {{ 'ABC'.lower() }} {{ 'hello world-x it\\'s'.title() }} {{ 'hELLO'.capitalize() }} {{ 'straße ΑΣ'.upper() }} {{ 'ÀÉ ΑΣ'.lower() }} {{ 'éa'.capitalize() }}", {}),
    ("{{ '-'.join(['a', 'b']) }} {{ ''.join([]) }}|{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'abc'.partition('x') }}", {}),
    ("{{ 'ab\\ncd\\r\\nef\\n'.splitlines() }} {{ 'a\\nb'.splitlines(true) }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.txt'.removesuffix('.txt') }}", {}),
    ("{{ 'ab'.center(6, '*') }} {{ 'abc'.center(6) }}| {{ 'ab'.ljust(4) }}| {{ 'ab'.rjust(4) }} {{ '42'.zfill(5) }} {{ '-42'.zfill(5) }}", {}),
    ("{{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }} {{ 'aB'.islower() }} {{ ''.isdigit() }}", {}),
    ("{{ '{0}-{1}-{x}'.format('a', 2, x=3.5) }} {{ '{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}|{:,}|{!r}'.format('a', 'b', 'c', 42, 3.14159, 1234567, 'q') }} {{ '{{}}'.format() }} {{ '{a[k]}'.format(a={'k': 'v'}) }}", {}),
    ("{{ 'abc'.join(1) }}", {}), ("{{ 'a'.nothing() }}", {}), ("{{ '{0.__class__}|{a.b}|{a.b[0]}|{c[1][k]}'.format('x', a={'b': 'v'}, c=[0, {'k': 2}]) }}", {}), ("{{ '{0.__class__.x}'.format('x') }}", {}), ("{{ 'x'.split('') }}", {}),
    # methods of containers
    ("{{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.get('a') }} {{ d.get('z') }} {{ d.get('z', 9) }} {{ d.keys() }} {{ d.values() }} {{ d.items() }}", {"d": {"a": 1, "b": [2]}}),
    ("{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}", {"d": {"x": 1, "y": None}}),
    ("{{ [1, 2, 1].count(1) }} {{ [1, 2].index(2) }} {{ (1, 1).count(1) }} {{ [1].copy() }} {{ 2.0.is_integer() }} {{ 2.5.is_integer() }}", {}),
    # loops
    ("{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }} {% endfor %}", {}),
    ("{% for x in 'abc' %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}{{ loop.cycle('o', 'e') }} {% endfor %}", {}),
    ("{% for x in [1, 1, 2] %}{{ loop.changed(x) }} {% endfor %}{{ loop is defined }}", {}),
    ("{% for x in [] %}a{% else %}none{% endfor %}{% for x in nope %}a{% else %} empty{% endfor %}", {}),
    ("{% for x in range(10) if x % 2 %}{{ x }}{{ ',' if not loop.last }}{% endfor %}", {}),
    ("{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}", {}),
    ("{% for a, (b, c) in [(1, (2, 3)), (4, (5, 6))] %}{{ a + b + c }} {% endfor %}", {}),
    ("{% for x in [[1, [2]], [3]] recursive %}{{ loop.depth }}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}", {}),
    ("{% for x in [1, 2] %}{% for y in [3, 4] %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}", {}),
    ("{% set x = 0 %}{% for i in [1, 2] %}{{ x }}{% set x = i %}{{ x }} {% endfor %}{{ x }}", {}),
    ("{% for i in [1, 2] %}{% if y is defined %}leak{% endif %}{% set y = i %}{% endfor %}{{ y is defined }}", {}),
    ("{% for x in 5 %}{% endfor %}", {}), ("{% for a, b in [1] %}{% endfor %}", {}), ("{% for a, b in [[1]] %}{% endfor %}", {}), ("{% break %}", {}),
    ("{% set ns = namespace(on=true) %}{% for x in range(6) if ns.on %}{{ x }}{% if x == 2 %}{% set ns.on = false %}{% endif %}{% endfor %}", {}),
    ("{% for m in messages %}{{ m.role }}{{ loop.index0 }}{% if messages[loop.index0 + 1] is defined %}>{{ messages[loop.index0 + 1].role }}{% endif %} {% endfor %}", {"messages": [{"role": "u"}, {"role": "a"}]}),
    # set, scopes, namespaces
    ("{% set a, b = 1, [2] %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c }}{% set (d, e) = 'xy' %}{{ d }}{{ e }}", {}),
    ("{% set x %}  a{{ 1 }}\n{% endset %}[{{ x }}]{% set y | upper | trim %} q {% endset %}[{{ y }}]", {}),
    ("{% if true %}{% set x = 1 %}{% endif %}{{ x }}{% with y = 2, z = x %}{{ y }}{{ z }}{% set x = 5 %}{% endwith %}{{ x }}{{ y is defined }}", {}),
    ("{% set ns = namespace(a=1, b='x') %}{% set ns.c = ns.a + 1 %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns.d is defined }}{{ ns['a'] }}", {}),
    ("{% set ns = namespace({'k': 1}, z=2) %}{{ ns.k }}{{ ns.z }}{% set ns.k, y = 3, 4 %}{{ ns.k }}{{ y }}", {}),
    ("{% set d = {} %}{% set d.x = 1 %}", {}), ("{% set true = 1 %}", {}), ("{% set a, b = [1, 2, 3] %}", {}),
    # macros, call, filter blocks
    ("{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=3) }} {{ m(b=5, a=4) }} {{ m() }}|", {}),
    ("{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}{{ m(*[4], **{'y': 5}) }}", {}),
    ("{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(5) }}", {}),
    ("{% macro outer(x) %}<{{ caller(x) }}>{% endmacro %}{% call(v) outer(3) %}v={{ v }}{% endcall %}", {}),
    ("{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}", {}),
    ("{% set g = 1 %}{% macro m() %}{{ g }}{% set g = 9 %}{{ g }}{% endmacro %}{{ m() }}{{ g }}{% set g = 2 %}{{ m() }}", {}),
    ("{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", {}), ("{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", {}), ("{% macro m(a=1, b) %}{% endmacro %}", {}),
    ("{% filter upper | replace('B', '-') %}abc{{ 'bd' }}{% endfilter %}", {}),
    ("{% generation %}a{{ x }}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", {"x": 1}),
    ("{% block b %}in{{ x }}{% endblock b %}{% block c scoped %}c{% endblock %}", {"x": 1}),
    # filters
    ("{{ tool | tojson }}\n{{ tool | tojson(indent=2) }}\n{{ tool | tojson(separators=(',', ':')) }}\n{{ [] | tojson(indent=4) }}{{ {} | tojson(indent=1) }}", TOOL),
    ("{{ v | tojson }} {{ v | tojson(ensure_ascii=true) }}", {"v": ["é😀\"\\/\n\t\r\f\b\u0001\u007f", 1.0, 1e20, 1e-7, -0.0, None, True, 12345678901234567]}),
    ("{{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }} {{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }} {{ (1, 2) | tojson(indent='--') }}", {}),
    ("{{ nope | tojson }}", {}), ("{{ range(3) | tojson }}", {}), ("{{ {(1, 2): 3} | tojson }}", {}), ("{{ [1] | map('string') | tojson }}", {}),
    ("{{ ' a ' | trim }}|{{ 'xax' | trim('x') }}|{{ 5 | trim }}|{{ none | trim }}|{{ nope | trim }}|", {}),
    ("{{ [1, 2] | length }}{{ 'añ' | length }}{{ {'a': 1} | count }}{{ nope | length }}{{ range(4) | length }}", {}), ("{{ 5 | length }}", {}),
    ("{{ nope | default('d') }} {{ none | default('d') }} {{ '' | default('d', true) }} {{ nope | d }}|{{ d.x | default([]) }}", {"d": {}}),
    ("{{ [1, none, 'a', 2.5] | join(', ') }} {{ people | join('-', attribute='name') }} {{ 'abc' | join('.') }} {{ [] | join }}|{{ {'a': 1, 'b': 2} | join }}", PEOPLE),
    ("{{ people | map(attribute='name') | join(',') }} {{ people | map(attribute='tags', default='none') | list }} {{ ['a', 'b'] | map('upper') | list }} {{ [1, 2] | map('string') | join }} {{ people | map(attribute='tags.0') | list }}", PEOPLE),
    ("{{ [0, 1, 2, ''] | select | list }} {{ [1, 2, 3] | select('odd') | list }} {{ [1, 2, 3] | reject('gt', 1) | list }} {{ [1, none] | reject('none') | list }} {{ [3, 4] | select('in', [4]) | list }}", {}),
    ("{{ people | selectattr('age', 'equalto', 30) | map(attribute='name') | list }} {{ people | rejectattr('tags') | list | length }} {{ people | selectattr('tags', 'defined') | list | length }} {{ people | selectattr('age', '>', 26) | first }}", PEOPLE),
    ("{{ people | sort(attribute='name') | map(attribute='name') | list }} {{ people | sort(attribute='age,name') | map(attribute='name') | list }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A', 'c'] | sort(case_sensitive=true) }} {{ [3, 1] | sort(reverse=true) }}", PEOPLE),
    ("{{ people | groupby('age') }}{% for age, group in people | groupby('age') %}{{ age }}:{{ group | length }};{% endfor %}{{ (people | groupby('age') | first).grouper }}", PEOPLE),
    ("{{ people | sum(attribute='age') }} {{ [1, 2.5] | sum }} {{ [[1], [2]] | sum(start=[]) }} {{ [3, 1, 2] | min }} {{ [3, 1] | max }} {{ ['b', 'A'] | min }} {{ [] | max }}|{{ people | max(attribute='age') | items | list }}", PEOPLE),
    ("{{ [1, 2, 1, 'a', 'A'] | unique | list }} {{ ['a', 'A'] | unique(true) | list }} {{ people | unique(attribute='age') | map(attribute='name') | list }}", PEOPLE),
    ("{{ [1, 2, 3] | first }}{{ [1, 2, 3] | last }}{{ 'abc' | first }}{{ 'abc' | last }}{{ [] | first }}|{{ [1, 2] | reverse | list }}{{ 'abc' | reverse }}{{ {'a': 1} | list }}{{ 'ab' | list }}", {}),
    ("{{ {'b': 1, 'A': 2} | dictsort }} {{ {'b': 1, 'A': 2} | dictsort(true) }} {{ {'b': 1, 'a': 2} | dictsort(false, 'value', true) }} {{ {'a': 1} | items | list }} {{ nope | items | list }}", {}),
    ("{{ 'heLLo wORLD it\\'s a-b (c)' | title }} {{ 'hELLO' | capitalize }} {{ 'aé' | upper }} {{ 'ÀB' | lower }} {{ 5 | upper }}", {}),
    ("{{ 'aXbX' | replace('X', '-') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 123 | replace('2', 'x') }} {{ 'ab' | replace('', '.') }}", {}),
    ("{{ '42' | int }} {{ '4.7' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 3.9 | int }} {{ '0x1f' | int(base=16) }} {{ none | int }} {{ ' 12 ' | int }} {{ '1_0' | int }} {{ -3.9 | int }}", {}),
    ("{{ '1.5' | float }} {{ 'x' | float }} {{ '1e3' | float }} {{ 'inf' | float }} {{ 3 | float }} {{ none | float(2.5) }} {{ 'nan' | float }}", {}),
    ("{{ 3.14159 | round(2) }} {{ 2.5 | round }} {{ 3.5 | round }} {{ 2.675 | round(2) }} {{ 42.55 | round(1, 'floor') }} {{ 42.51 | round(1, 'ceil') }} {{ 1234 | round(-2) }} {{ 5 | round }} {{ -3 | abs }} {{ -2.5 | abs }}", {}),
    ("{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent(2, blank=true) }}|{{ 'a\\nb' | indent('> ') }}|{{ 'a\\n' | indent(1) }}|", {}),
    ("{{ '<a href=\"x\">&\\'' | e }} {{ '<b>' | safe }} {{ ('<b>' | safe) + '<i>' }} {{ '<i>' + ('<b>' | safe) }} {{ ('<' | safe) ~ '<' }} {{ '<x>' | escape | escape }} {{ '<x>' | e | forceescape }}", {}),
    ("{{ ('<' | safe).upper() + '>' }} {{ ('<a>' | safe)[1:] + '<' }} {{ (('a' | safe) * 2) + '<' }} {{ ['<', '<' | safe] | join('>') }} {{ ('%s' | safe) | string is escaped }} {{ [('<' | safe) | last, ('<' | safe) | first] }}", {}),
    ("{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3] | batch(2, 'x') | list }} {{ [1, 2, 3, 4, 5] | slice(2) | list }} {{ [1, 2, 3] | slice(2, 0) | list }}", {}),
    ("{{ 'hello big world' | truncate(9, leeway=0) }} {{ 'hello big world' | truncate(9, true, leeway=0) }} {{ 'abc' | truncate(3) }} {{ 'one two_three é' | wordcount }} {{ 'ab' | center(6) }}|", {}),
    ("{{ '%s-%s' | format('a', 1) }} {{ 'a b/ü?' | urlencode }} {{ {'a b': 'c&d'} | urlencode }} {{ {'a': 1} | attr('keys') is callable }} {{ {'a': 1} | attr('a') is defined }}", {}),
    ("{{ 5 | string + 'x' }} {{ [1, 'a'] | string }} {{ none | string }} {{ nope | string }}|{{ 1.0 | string }}", {}),
    ("{{ x | nosuchfilter }}", {}), ("{{ x is nosuchtest }}", {}), ("{{ 'a' | trim(1, 2, 3) }}", {}), ("{{ [1, 'a'] | sort }}", {}),
    ("{% set g = [1, 2] | map('string') %}{{ g is defined }}{{ g | list }}{{ g | list }}{{ g is iterable }}{{ g is sequence }}", {}),
    ("{% set g = [1, 2, 3] | select('odd') %}{% for x in g %}{{ x }}{% break %}{% endfor %}{{ g | list }}", {}),
    # tests
    ("{{ [none is none, 1 is number, 1.0 is float, 1 is integer, true is integer, true is number, true is boolean, 'a' is string, {} is mapping] }}", {}),
    ("{{ ['a' is iterable, {} is iterable, 1 is iterable, nope is iterable, [] is sequence, {} is sequence, 'a' is sequence, 5 is sequence, range(2) is sequence] }}", {}),
    ("{{ [3 is odd, 4 is even, 9 is divisibleby 3, 9 is divisibleby(2), 'a' is lower, 'A' is upper, 1 is eq 1, 1 is ne 2, 1 is lt 2, 1 is in [1], 'x' is sameas 'x', true is sameas true] }}", {}),
    ("{{ [x is defined, x is not defined, x is undefined, nope is defined, d.y is undefined, none is defined, range is callable, 'x' is callable, true is true, 1 is true, false is false, 'trim' is filter, 'odd' is test] }}", {"x": 1, "d": {}}),
    ("{{ 'a' is not string and true }} {{ not x is defined }} {{ x is defined and x == 1 or false }} {{ 1 is string or 'b' }}", {"x": 1}),
    ("{{ nope is none }} {{ none is none }} {{ '' is none }} {{ 5 is odd is even }}", {}), ("{{ 'a' is odd }}", {}),
    # globals
    ("{{ range(3) | list }} {{ range(1, 4) | list }} {{ range(5, 0, -2) | list }} {{ range(3) }} {{ range(0) | list }} {{ range(10)[2] }} {{ 3 in range(5) }} {{ range(1, 9, 3) }}", {}),
    ("{{ dict(a=1, b='x') }} {{ dict([('k', 2)], z=3) }} {{ dict({'a': 1}, a=2) }} {{ dict() }}", {}),
    ("{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %H:%M:%S') }} {{ strftime_now('%A, %B %-d, %j %% %p %I') }}|{{ strftime_now('') }}|{{ strftime_now('%z%Z%f') }}", {}),
    ("{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}{% set j = joiner('|') %}{{ j() }}x{{ j() }}y", {}),
    ("{{ raise_exception('no ' ~ 1) }}", {}), ("{{ 'x' if true else raise_exception('never') }}", {}), ("{{ range(1, 2, 0) }}", {}), ("{{ range() }}", {}),
    # syntax errors
    ("{{ 1", {}), ("{% if x %}", {}), ("{% endif %}", {}), ("{{ 'abc }}", {}), ("{{ (1 }}", {}), ("{{ }}", {}), ("{% frobnicate %}", {}), ("{# open", {}), ("{% for %}{% endfor %}", {}), ("{{ a b }}", {}), ("{{ 1 +  }}", {}), ("{{ @ }}", {}), ("{{ f(a=1, 2) }}", {}), ("{% include 'x' %}", {}), ("{% raw %}x", {}), ("{{ x[] }}", {}), ("{{ f(**a, **b) }}", {}), ("{% if %}x{% endif %}", {}),
    ("}} %} #} { % {", {}), ("{{ {'a': {'b': 1}}['a']['b'] }}{{ '}}' }}{{ \"%}\" }}", {}), ("{{ [1, 2, ] | length }}{{ (1, ) }}{{ {'a': 1, } }}", {}),
]


def main():
    out = pathlib.Path(__file__).with_name("language_cases.jsonl")
    with out.open("w", encoding="utf-8") as lines:
        for template, context in CASES:
            status, text = render(template, context)
            row = {"template": template, "context": context, "status": status}
            if status != "error":
                row["expected"] = text
            lines.write(json.dumps(row, ensure_ascii=True) + "\n")
    print(len(CASES), "cases")


if __name__ == "__main__":
    main()
