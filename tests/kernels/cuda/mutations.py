"""The emulation's own proof: spoils one thing at a time in a kernel's source (a barrier, a wait, a fence, a swizzle
constant), compiles the emulated kernel with it, and expects its tests to fail. A mutation that survives, or that no longer
finds its place in the source, fails this test. Run by CTest with the libraries of the real test.

Usage: mutations.py SOURCE_DIR WORK_DIR FAMILY COMPILER LIBRARY... -- TEST_SOURCE..."""

import pathlib
import subprocess
import sys

# family -> (file to compile, gtest filter, [(file to spoil, what, with what, how often it stands there)])
FAMILIES = {
    "attention": ("attention.cu", "Attention/*:Invariance/*attention*:AttentionTile.*", [
        ("attention.cu", "simt::sync_warp();  // the stage has been read: the next turn fills it", "", 1),
        ("attention.cu", "      copy_async_wait<1>();\n      simt::sync_warp();", "      simt::sync_warp();", 1),
        ("attention.cu", "      copy_async_wait<1>();\n      simt::sync_warp();", "      copy_async_wait<1>();", 1),
        ("attention.cu", "      simt::sync_block();  // the stage has been read: the next turn fills it", "", 1),
        ("attention.cu", "      copy_async_wait<1>();\n      simt::sync_block();", "      copy_async_wait<1>();", 1),
        ("attention_tile.cuh", "^ (key / 2 % 4)", "^ (key / 4 % 4)", 1),
        ("attention_tile.cuh", "tile_offset(value_key, value_dim + 16)", "tile_offset(value_key, value_dim + 8)", 1),
    ]),
    "gemm": ("gemm.cu", "Gemm/*:Invariance/*gemm*", [
        ("gemm.cu", "    copy_async_wait<kStages - 2>();", "    copy_async_wait<kStages - 1>();", 1),
        ("gemm.cu", "    simt::sync_block();  // stage s is there", "    // ", 1),
        ("gemm.cu", "  simt::sync_block();  // the stages are read", "  // the stages are read", 1),
        ("gemm.cu", "  simt::sync_block();\n  for (int i = simt::thread(); i < 16 * kTokens", "  for (int i = simt::thread(); i < 16 * kTokens", 1),
        ("gemm.cu", "(chunk / 4 * num_rows + row) * kRun", "(chunk / 4 * num_rows + (row ^ 1)) * kRun", 1),
    ]),
    "elementwise": ("elementwise.cu", "Rows/*", [
        ("elementwise.cu", "    simt::sync_warp();  // the head before has been read", "", 1),
        ("elementwise.cu", "+ args.eps);\n    simt::sync_warp();", "+ args.eps);", 1),
    ]),
    "experts": ("experts.cu", "Experts/*routing*", [
        ("experts.cu", "    simt::sync_block();  // the counts before have been read", "", 1),
        ("experts.cu", "simt::popcount(flags));\n    simt::sync_block();", "simt::popcount(flags));", 1),
        ("experts.cu", "w < simt::warp() ? of_warp : 0", "w <= simt::warp() ? of_warp : 0", 1),
        ("experts.cu", "static_cast<uint32_t>(~e)", "static_cast<uint32_t>(e)", 1),
        ("experts.cu", "taken |= 1u << (expert / simt::kWarp)", "taken |= 1u << (expert % simt::kWarp)", 1),
    ]),
    "sampler": ("sampler.cu", "Sampler/*:-*33000*", [
        ("block_select.cuh", "space.warp_values.set(simt::warp(), value);\n  simt::sync_block();", "space.warp_values.set(simt::warp(), value);", 1),
        ("block_select.cuh", "    });\n    simt::sync_block();", "    });", 1),
        ("sample_kernel.cuh", "  });\n  simt::sync_block();\n  for (int i = simt::thread(); i < num_top", "  });\n  for (int i = simt::thread(); i < num_top", 1),
    ]),
}


def compile_with(compiler, source, folders, arguments):
    return subprocess.run([compiler, "-std=c++20", "-O1", "-ffp-contract=off", f'-DSERVAL_SOURCE_DIR="{source}"', *(f"-I{folder}" for folder in folders),
                           f"-I{source}", *arguments], capture_output=True, text=True, check=False)


def main():
    split = sys.argv.index("--")
    source, work, family, compiler, *libraries = sys.argv[1:split]
    checks, tile_test = sys.argv[split + 1 :]
    kernel, selection, mutations = FAMILIES[family]
    pathlib.Path(work).mkdir(parents=True, exist_ok=True)
    checks_object = f"{work}/{family}-checks.o"
    ready = compile_with(compiler, source, [], ["-c", checks, "-o", checks_object])
    if ready.returncode != 0:
        sys.exit(ready.stderr[-2000:])
    survived = 0
    for number, (name, what, replacement, count) in enumerate(mutations):
        original = (pathlib.Path(source) / "kernels/cuda" / name).read_text(encoding="utf-8")
        if original.count(what) != count:
            print(f"{family} {number}: '{what}' stands {original.count(what)} times in {name}, not {count}")
            survived += 1
            continue
        folder = pathlib.Path(work) / f"{family}-{number}"
        spoiled = folder / "kernels/cuda" / name
        spoiled.parent.mkdir(parents=True, exist_ok=True)
        spoiled.write_text(original.replace(what, replacement), encoding="utf-8")
        # The spoiled folder comes first: a mutated header is found before the real one.
        sources = [str(spoiled if name == kernel else pathlib.Path(source) / "kernels/cuda" / kernel)]
        if name == "attention_tile.cuh":
            sources.append(tile_test)
        program = folder / "test"
        built = compile_with(compiler, source, [folder], ["-x", "c++", *sources, "-x", "none", checks_object, *libraries, "-o", str(program)])
        if built.returncode != 0:
            print(built.stderr[-2000:])
            print(f"{family} {number}: does not compile")
            survived += 1
            continue
        run = subprocess.run([str(program), f"--gtest_filter={selection}", "--gtest_brief=1", "--gtest_fail_fast"], capture_output=True, text=True, check=False)
        caught = run.returncode != 0
        what_line, replacement_line = (text.strip().splitlines()[0] if text.strip() else "nothing" for text in (what, replacement))
        print(f"{family} {number}: {'caught' if caught else 'SURVIVED'}: {what_line} -> {replacement_line}")
        survived += not caught
        program.unlink()
    print(f"{len(mutations) - survived} of {len(mutations)} mutations of {family} were caught")
    sys.exit(1 if survived else 0)


main()
