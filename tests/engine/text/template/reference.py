"""Chat templates as transformers renders them: Jinja2's immutable sandbox with the same extensions, filters and globals, at one fixed
moment. Needs jinja2 3.1.6; run by hand, never by the test suite."""

import datetime
import json

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2024, 7, 26, 15, 4, 5)


class Raised(Exception):
    """The template itself called raise_exception."""


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def _raise(message):
    raise Raised(str(message))


def _tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment(optimized=True):
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, optimized=optimized, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = _tojson
    env.globals["raise_exception"] = _raise
    env.globals["strftime_now"] = lambda format: NOW.strftime(format)
    return env


def render(source, context, compiled=None, optimized=True):
    """(status, text): "ok" with the rendering, "raised" with the template's words, "error" with Python's. `compiled` keeps templates.
    Without optimized, Jinja2 folds no constants: folding answers some constant expressions otherwise than it computes them."""
    compiled = {} if compiled is None else compiled
    try:
        if source not in compiled:
            compiled[source] = environment(optimized).from_string(source)
        return "ok", compiled[source].render(**context)
    except Raised as error:
        return "raised", str(error)
    except RecursionError:
        return "error", "recursion"
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"
