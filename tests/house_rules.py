"""The layering as a test: each folder may include only its own folder and the rows below it (docs/architecture.md), and heavy
libraries stay where they belong. Run by CTest; prints every include that breaks a rule."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

# folder -> prefixes of our own headers it may include, in the order of the tree; the longest folder that matches a file is its home.
BASE = ["kernels/base/"]
NOUNS = ["engine/request.h", "engine/token_constraint.h", "engine/batch.h", "engine/config.h", "engine/kv_geometry.h", "engine/length_classes.h", "engine/long_attention.h", "engine/sampling_ranges.h", "engine/stats.h", "engine/step_cost.h", "kernels/values.h", "kernels/tensor.h", *BASE]
SERVER_NOUNS = ["server/memory_budget.h", "server/out_of_memory.h", "server/request_record.h", "server/unique_id.h"]
SEAM = [f"kernels/{name}" for name in ("activation.h", "attention_plan.h", "attention_split.h", "backend.h", "expert_routing.h", "float_bits.h", "gumbel.h", "host_device.h", "quant.h", "sample.h", "step_context.h", "tensor.h", "values.h")]
ALLOWED = {
    "kernels/base": BASE,
    "kernels/cpu": ["kernels/cpu/", *SEAM, *BASE],
    "kernels/cuda": ["kernels/cuda/", *SEAM, *BASE],
    "kernels/emulation": ["kernels/emulation/", "kernels/cuda/", *BASE],
    # make_device.cc chooses between the devices, so the seam's own folder sees both.
    "kernels": ["kernels/cpu/", "kernels/cuda/", *SEAM, *BASE],
    "engine/json": ["engine/json/", *BASE],
    "engine/grammar": ["engine/grammar/", "engine/json/", *BASE],
    "engine/scheduler": ["engine/scheduler/", *NOUNS],
    "engine/text/tokenizer": ["engine/text/tokenizer/", "engine/json/", *BASE],
    "engine/text/jinja": ["engine/text/jinja/", *BASE],
    "engine/text/message": ["engine/text/message/", "engine/json/", *BASE],
    "engine/text/template": ["engine/text/template/", "engine/text/jinja/", *BASE],
    "engine/model": ["engine/model/", "engine/json/", *SEAM, *NOUNS],
    # A part of a model knows the seam and what a slot and a norm are; of other parts, nothing.
    "engine/model/mixers": ["engine/model/mixers/", "engine/model/norm.h", "engine/model/weight_slots.h", *SEAM, *BASE],
    "engine/model/ffn": ["engine/model/ffn/", "engine/model/norm.h", "engine/model/weight_slots.h", *SEAM, *BASE],
    # A family reads its configuration into a spec: no device runs and no checkpoint is opened here.
    "engine/model/architectures": ["engine/model/architectures/", "engine/model/config_fields.h", "engine/model/harmless_fields.h", "engine/model/model_spec.h", "engine/model/tensor_names.h", "engine/json/", *BASE],
    "engine/runner": ["engine/runner/", "engine/model/", "kernels/cpu/system_memory.h", *SEAM, *NOUNS],
    "engine/runner/speculators": ["engine/runner/", "engine/model/", *SEAM, *NOUNS],
    # "engine" alone stands for the nouns, engine/*.h, and for the loop, to which the runner comes as two functions.
    "engine": ["engine/engine.h", "engine/scheduler/", *NOUNS],
    "server/http": ["server/http/", "engine/json/", *SERVER_NOUNS, *BASE],
    # How an answer is told over HTTP, whatever the dialect; then the dialects.
    "server/answers": ["server/answers/", "server/http/", "server/service/inference_service.h", "server/service/chat.h", "engine/json/", *SERVER_NOUNS, *NOUNS],
    "server/anthropic": ["server/anthropic/", "server/answers/", "server/http/", "server/service/inference_service.h", "server/service/chat.h", "engine/json/", *SERVER_NOUNS, *NOUNS],
    "server/responses": ["server/responses/", "server/answers/", "server/http/", "server/service/inference_service.h", "server/service/chat.h", "engine/json/", *SERVER_NOUNS, *NOUNS],
    "server/ollama": ["server/ollama/", "server/answers/", "server/http/", "server/service/inference_service.h", "server/service/chat.h", "engine/json/", *SERVER_NOUNS, *NOUNS],
    "server/openai": ["server/openai/", "server/answers/", "server/http/", "server/service/inference_service.h", "server/service/chat.h", "engine/json/", *SERVER_NOUNS, *NOUNS],
    # Whose lines are asked of routes as they are: no dialect.
    "server/batches": ["server/batches/", "server/http/", "engine/json/", *SERVER_NOUNS, *BASE],
    "server/grpc": ["server/grpc/", "server/http/", "server/service/inference_service.h", "server/service/chat.h", "serval/v1/", "grpc/", *SERVER_NOUNS, *NOUNS],
    "server/service": ["server/service/", "engine/engine.h", "engine/grammar/", "engine/json/", "engine/model/", "engine/scheduler/scheduler.h", "engine/text/", *SERVER_NOUNS, *NOUNS],
    # app.cc is the composition root, main.cc the programs.
    "server": ["server/", "engine/", "kernels/", "loadtest/"],
    "loadtest/load": ["loadtest/load/", "server/batches/batch_lines.h", "engine/json/", "serval/v1/", *BASE],
    "loadtest/simulate": ["loadtest/simulate/", "loadtest/load/", "engine/", *NOUNS],
    "loadtest/bench": ["loadtest/bench/", "loadtest/load/", "engine/", "kernels/"],
    # serval-gpu runs the kernels' checks on a real device too.
    "loadtest/gpu": ["loadtest/gpu/", "tests/kernels/checks/", "engine/", "kernels/"],
}

# library header prefix -> folders that may include it.
LIBRARIES = {
    "grpcpp/": ["loadtest/load"],
    "google/protobuf": ["server/grpc"],
    "nghttp2/": ["server/grpc"],
    "prometheus/": ["server/service"],
    "yaml-cpp/": ["server"],
    "boost/asio": ["server/http", "server/grpc", "loadtest/load"],
    "boost/beast": ["server/http", "loadtest/load"],
    "boost/json": ["server", "server/answers", "server/anthropic", "server/batches", "server/responses", "server/ollama", "server/openai", "server/service", "loadtest/load", "loadtest/gpu", "loadtest/bench", "loadtest/simulate", "engine/json", "engine/grammar", "engine/text/jinja", "engine/text/message", "engine/text/template", "engine/text/tokenizer", "engine/model"],
    "boost/context": ["kernels/emulation"],
    "sentencepiece": ["engine/text/tokenizer"],
    "unicode/": ["engine/grammar", "engine/text/jinja", "engine/text/tokenizer"],
    "pcre2": ["engine/text/tokenizer"],
    "immintrin.h": ["kernels"],
    "lzma.h": ["loadtest/load"],
    "zlib.h": ["loadtest/load"],
}


# The two headers through which kernels see either the device or its emulation.
EMULATION_DOORS = ("kernels/cuda/simt.h", "kernels/cuda/ptx.h")
MAY_TELL_HOST_FROM_DEVICE = (*EMULATION_DOORS, "kernels/host_device.h")


INCLUDE = re.compile(r'\s*#\s*include\s+([<"])([^">]+)[>"]')
TOPS = ("kernels", "engine", "server", "loadtest")


def sources(root: pathlib.Path):
    for top in TOPS:
        for path in sorted((root / top).rglob("*")):
            if path.suffix in (".h", ".cc", ".cu", ".cuh"):
                yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


def home(file: str) -> str:
    """The longest folder of the table that holds the file; a file that no row holds has no home."""
    return max((folder for folder in ALLOWED if file.startswith(folder + "/")), key=len, default="")


def broken_includes(root: pathlib.Path):
    for file, text in sources(root):
        folder = home(file)
        if not folder:
            yield f"{file}: no row of tests/house_rules.py says what may be included here"
            continue
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{file}:{number}"
            if re.match(r"\s*#.*__CUDA(CC|_ARCH)__", line) and file not in MAY_TELL_HOST_FROM_DEVICE:
                yield f"{where}: only {', '.join(MAY_TELL_HOST_FROM_DEVICE)} may tell host from device"
            if re.search(r"\b(get(_if)?|holds_alternative)<\w+(Spec|Weights)>", line):
                yield f"{where}: parts of a model are visited: what asks for one compiles without the others"
            found = INCLUDE.match(line)
            if not found:
                continue
            quote, header = found.groups()
            if file in EMULATION_DOORS and header.startswith("kernels/emulation/"):
                continue
            if quote == '"' and not header.startswith(tuple(ALLOWED[folder])):
                yield f"{where}: {folder} may not include {header}"
            for prefix, folders in LIBRARIES.items():
                if header.startswith(prefix) and not any(folder == f or folder.startswith(f + "/") for f in folders):
                    yield f"{where}: {header} belongs to {', '.join(folders)} only"


def rings(root: pathlib.Path):
    """Pairs (x.h with x.cc) that include each other in a circle: strongly connected components (Tarjan 1972)."""
    edges: dict[str, set[str]] = {}
    for file, text in sources(root):
        pair = file.rsplit(".", 1)[0]
        for line in text.splitlines():
            if (found := INCLUDE.match(line)) and found[1] == '"':
                edges.setdefault(pair, set()).add(found[2].rsplit(".", 1)[0])
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(pair: str):
        order[pair] = lowest[pair] = len(order)
        stack.append(pair)
        for other in sorted(edges.get(pair, ())):
            if other not in order:
                yield from visit(other)
            if other in stack:
                lowest[pair] = min(lowest[pair], lowest[other])
        if lowest[pair] == order[pair]:
            ring = stack[stack.index(pair):]
            del stack[stack.index(pair):]
            if len(ring) > 1:
                yield f"these include each other in a ring: {', '.join(sorted(ring))}"

    for pair in sorted(edges):
        if pair not in order:
            yield from visit(pair)


def problems(root: pathlib.Path):
    yield from broken_includes(root)
    yield from rings(root)


if __name__ == "__main__":
    found = list(problems(ROOT))
    print("\n".join(found) or "every include follows the layering, and none goes in a ring")
    sys.exit(1 if found else 0)
