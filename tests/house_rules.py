"""The layering as a test: each folder may include only its own folder and the rows below it (docs/architecture.md), and heavy
libraries stay where they belong. Run by CTest; prints every include that breaks a rule."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

# folder -> prefixes of our own headers it may include. "engine/" alone stands for the nouns, engine/*.h.
NOUNS = ["engine/request.h", "engine/batch.h", "engine/config.h", "engine/sampling_ranges.h", "engine/stats.h", "kernels/base/", "kernels/values.h", "kernels/tensor.h"]
ALLOWED = {
    "kernels": ["kernels/"],
    "engine/scheduler": ["engine/scheduler/", *NOUNS],
    "engine/text": ["engine/text/", *NOUNS],
    "engine/model": ["engine/model/", "kernels/", *NOUNS],
    "engine/runner": ["engine/runner/", "engine/model/", "kernels/", *NOUNS],
    "engine": ["engine/engine.h", "engine/scheduler/", "engine/runner/", *NOUNS],
    "server": ["server/", "engine/", "kernels/", "serval/v1/", "grpc/", "loadtest/"],
    "loadtest": ["loadtest/", "engine/", "kernels/", "serval/v1/"],
}

# library header prefix -> folders that may include it.
LIBRARIES = {
    "grpcpp/": ["loadtest"],
    "google/protobuf": ["server"],
    "nghttp2/": ["server"],
    "prometheus/": ["server"],
    "yaml-cpp/": ["server"],
    "boost/asio": ["server", "loadtest"],
    "boost/beast": ["server", "loadtest"],
    "boost/json": ["server", "loadtest", "engine/text", "engine/model"],
    "sentencepiece": ["engine/text"],
    "unicode/": ["engine/text"],
    "pcre2": ["engine/text"],
    "immintrin.h": ["kernels"],
    "lzma.h": ["loadtest"],
    "zlib.h": ["loadtest"],
}


# The two headers through which kernels see either the device or its emulation.
EMULATION_DOORS = ("kernels/cuda/simt.h", "kernels/cuda/ptx.h")
MAY_TELL_HOST_FROM_DEVICE = (*EMULATION_DOORS, "kernels/host_device.h")


def home(path: pathlib.Path) -> str:
    relative = path.relative_to(ROOT).as_posix()
    return max((folder for folder in ALLOWED if relative.startswith(folder + "/")), key=len)


def problems():
    for top in ("kernels", "engine", "server", "loadtest"):
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
                if where.split(":")[0] in EMULATION_DOORS and header.startswith("tests/simt/"):
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
