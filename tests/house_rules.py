"""The layering as a test: each folder may include only its own folder and the rows below it (docs/architecture.md), and heavy
libraries stay where they belong. Run by CTest; prints every include that breaks a rule."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

# folder -> prefixes of our own headers it may include, in the order of the tree; the longest folder that matches a file is its home.
BASE = ["kernels/base/"]
NOUNS = ["engine/request.h", "engine/batch.h", "engine/config.h", "engine/sampling_ranges.h", "engine/stats.h", "kernels/values.h", "kernels/tensor.h", *BASE]
SERVER_NOUNS = ["server/memory_budget.h", "server/out_of_memory.h", "server/request_record.h", "server/unique_id.h"]
SEAM = [f"kernels/{name}" for name in ("attention_plan.h", "attention_split.h", "backend.h", "float_bits.h", "gumbel.h", "host_device.h", "quant.h", "sample.h", "tensor.h", "values.h")]
ALLOWED = {
    "kernels/base": BASE,
    "kernels/cpu": ["kernels/cpu/", *SEAM, *BASE],
    "kernels/cuda": ["kernels/cuda/", *SEAM, *BASE],
    "kernels/emulation": ["kernels/emulation/", "kernels/cuda/", *BASE],
    # make_device.cc chooses between the devices, so the seam's own folder sees both.
    "kernels": ["kernels/cpu/", "kernels/cuda/", *SEAM, *BASE],
    "engine/json": ["engine/json/", *BASE],
    "engine/scheduler": ["engine/scheduler/", *NOUNS],
    "engine/text/tokenizer": ["engine/text/tokenizer/", "engine/json/", *BASE],
    "engine/text/jinja": ["engine/text/jinja/", *BASE],
    "engine/text/template": ["engine/text/template/", "engine/text/jinja/", *BASE],
    "engine/model": ["engine/model/", "engine/json/", *SEAM, *NOUNS],
    "engine/runner": ["engine/runner/", "engine/model/", "kernels/cpu/system_memory.h", *SEAM, *NOUNS],
    "engine/runner/speculators": ["engine/runner/speculators/", *NOUNS],
    # "engine" alone stands for the nouns, engine/*.h, and for the loop, to which the runner comes as two functions.
    "engine": ["engine/engine.h", "engine/scheduler/", *NOUNS],
    "server/http": ["server/http/", "engine/json/", *SERVER_NOUNS, *BASE],
    "server/openai": ["server/openai/", "server/http/", "server/service/inference_service.h", "engine/json/", *SERVER_NOUNS, *NOUNS],
    "server/grpc": ["server/grpc/", "server/http/", "server/service/inference_service.h", "serval/v1/", "grpc/", *SERVER_NOUNS, *NOUNS],
    "server/service": ["server/service/", "engine/engine.h", "engine/json/", "engine/model/", "engine/scheduler/scheduler.h", "engine/text/", *SERVER_NOUNS, *NOUNS],
    # app.cc is the composition root, main.cc the programs.
    "server": ["server/", "engine/", "kernels/", "loadtest/"],
    "loadtest/load": ["loadtest/load/", "engine/json/", "serval/v1/", *BASE],
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
    "boost/json": ["server/openai", "server/service", "loadtest", "engine/json", "engine/text", "engine/model"],
    "boost/context": ["kernels/emulation"],
    "sentencepiece": ["engine/text/tokenizer"],
    "unicode/": ["engine/text"],
    "pcre2": ["engine/text/tokenizer"],
    "immintrin.h": ["kernels"],
    "lzma.h": ["loadtest/load"],
    "zlib.h": ["loadtest/load"],
}


# The two headers through which kernels see either the device or its emulation.
EMULATION_DOORS = ("kernels/cuda/simt.h", "kernels/cuda/ptx.h")
MAY_TELL_HOST_FROM_DEVICE = (*EMULATION_DOORS, "kernels/host_device.h")


TOPS = ("kernels", "engine", "server", "loadtest")


def home(path: pathlib.Path) -> str:
    relative = path.relative_to(ROOT).as_posix()
    return max((folder for folder in ALLOWED if relative.startswith(folder + "/")), key=len)


def problems():
    for top in TOPS:
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix not in (".h", ".cc", ".cu", ".cuh"):
                continue
            folder = home(path)
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if re.match(r"\s*#.*__CUDA(CC|_ARCH)__", line) and path.relative_to(ROOT).as_posix() not in MAY_TELL_HOST_FROM_DEVICE:
                    yield f"{path.relative_to(ROOT)}:{number}: only {', '.join(MAY_TELL_HOST_FROM_DEVICE)} may tell host from device"
                found = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
                if not found:
                    continue
                quote, header = found.groups()
                where = f"{path.relative_to(ROOT)}:{number}"
                if where.split(":")[0] in EMULATION_DOORS and header.startswith("kernels/emulation/"):
                    continue
                if quote == '"' and not header.startswith(tuple(ALLOWED[folder])):
                    yield f"{where}: {folder} may not include {header}"
                for prefix, folders in LIBRARIES.items():
                    if header.startswith(prefix) and not any(folder == f or folder.startswith(f + "/") for f in folders):
                        yield f"{where}: {header} belongs to {', '.join(folders)} only"


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found) or "every include follows the layering")
    sys.exit(1 if found else 0)
