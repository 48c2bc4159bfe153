"""Each rule of house_rules.py, broken on purpose in a folder made for it, is found; what keeps the rules is not. Run by CTest."""

import pathlib
import sys
import tempfile

import house_rules

ALLOWED_EVERYWHERE = "kernels/base/check.h"


def found_in(files: dict[str, str]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        return list(house_rules.problems(root))


def forbidden_to(folder: str) -> str:
    """A header of another room that this folder's row leaves out."""
    rooms = [f"{other}/planted.h" for other in house_rules.ALLOWED] + ["tests/support/planted.h"]
    return next(header for header in reversed(rooms) if not header.startswith(tuple(house_rules.ALLOWED[folder])))


def main() -> int:
    mistakes = []

    def expect(what: str, files: dict[str, str], problem: str | None):
        found = found_in(files)
        if problem is None and found:
            mistakes.append(f"{what}: nothing is wrong, yet {found}")
        if problem is not None and (len(found) != 1 or problem not in found[0]):
            mistakes.append(f"{what}: expected one problem with '{problem}', found {found}")

    for folder in house_rules.ALLOWED:
        file = f"{folder}/planted.cc"
        if folder != "server":  # the composition root, which nobody includes upwards
            expect(f"{folder} includes base", {file: f'#include "{ALLOWED_EVERYWHERE}"\n'}, None)
        header = forbidden_to(folder)
        expect(f"{folder} includes {header}", {file: f'#include "{header}"\n'}, f"{file}:1: {folder} may not include {header}")
    for prefix, folders in house_rules.LIBRARIES.items():
        stranger = next(f for f in house_rules.ALLOWED if not any(f == g or f.startswith(g + "/") for g in folders))
        expect(f"{prefix} in {stranger}", {f"{stranger}/planted.cc": f"#include <{prefix}x>\n"}, "belongs to")
        expect(f"{prefix} at home", {f"{folders[0]}/planted.cc": f"#include <{prefix}x>\n"}, None)
    expect("a folder without a row", {"engine_room/planted.cc": "", "kernels_too/planted.cc": ""}, None)  # not ours to judge
    expect("a file at the top", {"loadtest/planted.cc": ""}, "no row")
    expect("a part that is asked for", {"engine/runner/planted.cc": "std::get<GqaSpec>(layer.mixer);\n"}, "are visited")
    expect("a kernel that asks where it is", {"kernels/cuda/planted.cu": "#if defined(__CUDACC__)\n"}, "tell host from device")
    ring = {"engine/json/a.h": '#include "engine/json/b.h"\n', "engine/json/b.cc": '#include "engine/json/c.h"\n', "engine/json/c.h": '#include "engine/json/a.h"\n'}
    expect("a ring of pairs", ring, "ring: engine/json/a, engine/json/b, engine/json/c")
    expect("the same without its last arrow", {**ring, "engine/json/c.h": ""}, None)

    print("\n".join(mistakes) or "every planted violation was found")
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
