"""The run that a machine with a GPU gets, tried on the emulated device: what travels is small, what comes back is short."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "loadtest/gpu/run_on_gpu.sh"
MOST_CARRIED = 40 << 20  # bytes
MOST_FILES, MOST_LINES = 8, 100


def run(*arguments, **settings):
    return subprocess.run([SCRIPT, *arguments], cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, timeout=300,
                          check=False)


def test_the_run_on_a_gpu_works_on_the_emulated_device_and_keeps_its_limits(tmp_path):
    if not (ROOT / "build/release/loadtest/gpu/serval-gpu").exists():
        pytest.skip("serval-gpu is not built: this machine has no CUDA toolkit")
    prepared = run("--prepare")
    assert prepared.returncode == 0, prepared.stderr
    carried = sum(f.stat().st_size for f in (ROOT / "build/gpu").rglob("*") if f.is_file())
    assert carried <= MOST_CARRIED

    ran = run("--emulated", OUT=str(tmp_path), TOTAL_S="120")
    assert ran.returncode == 0, ran.stderr
    assert "the dumps agree" in ran.stdout
    assert "WRONG" not in ran.stdout
    for part in ("check-gemm", "check-attention", "check-rows", "check-sampling", "invariance"):
        assert f"{part}: " in ran.stdout
    assert ran.stdout.count(" checks run, 0 wrong") == 5, ran.stdout
    assert len(ran.stdout.splitlines()) <= MOST_LINES
    assert len(list(tmp_path.iterdir())) <= MOST_FILES


def test_a_run_without_time_begins_nothing_and_still_ends_well(tmp_path):
    if not (ROOT / "build/gpu/serval-gpu-emulated").exists():
        pytest.skip("build/gpu is not prepared: the test before says why")
    ran = run("--emulated", OUT=str(tmp_path), TOTAL_S="4")
    assert ran.returncode == 0, ran.stderr
    assert "-- fragments: no time left" in ran.stdout
    assert " checks run" not in ran.stdout


def test_an_unknown_option_is_a_mistake():
    assert run("--fast").returncode == 2
