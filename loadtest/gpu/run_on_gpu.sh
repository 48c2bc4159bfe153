#!/usr/bin/env bash
# Everything worth knowing about the CUDA backend on a machine with a GPU, in one run that ends by itself.
# Usage, from the repository's root:
#   loadtest/gpu/run_on_gpu.sh --prepare     where it was built (build/release, with CUDA): puts what travels into build/gpu
#   loadtest/gpu/run_on_gpu.sh               on the machine with the GPU, which needs build/gpu and the tracked files
#   loadtest/gpu/run_on_gpu.sh --emulated    the same steps on the emulated device, with its small shapes, to try the script
# Results go to $OUT (build/gpu/out without it): at most eight files; the summary printed is at most 100 lines.
# TOTAL_S (575) is the time after which nothing more is begun; a step is cut off where the rest would be too short for it.
set -u
cd "$(dirname "$0")/../.."
box=$PWD/build/gpu mode=${1:-}

prepare() {
  set -e
  local release=build/release
  for program in loadtest/gpu/serval-gpu tests/kernels/cuda/gpu_test tests/loadtest/gpu/serval-gpu-emulated; do
    [ -x "$release/$program" ] || { echo "there is no $release/$program; build the release preset with the CUDA toolkit first" >&2; exit 1; }
  done
  rm -rf "$box"
  mkdir -p "$box"
  for program in loadtest/gpu/serval-gpu tests/kernels/cuda/gpu_test tests/loadtest/gpu/serval-gpu-emulated; do
    strip -o "$box/$(basename "$program")" "$release/$program"
  done
  "$box/serval-gpu-emulated" fragments --json "$box/emulated.json" >/dev/null
  git rev-parse --short HEAD >"$box/commit"
  du -sh "$box" | cut -f1
}

case "$mode" in
  --prepare) prepare; exit ;;
  --emulated) program=serval-gpu-emulated shapes=(--small) ;;
  "") program=serval-gpu shapes=() ;;
  *) echo "usage: loadtest/gpu/run_on_gpu.sh [--prepare | --emulated]" >&2; exit 2 ;;
esac
[ -f "$box/$program" ] || { echo "there is no build/gpu/$program; loadtest/gpu/run_on_gpu.sh --prepare makes it" >&2; exit 1; }
chmod +x "$box"/serval-gpu* "$box/gpu_test"
gpu=$box/$program out=${OUT:-$box/out} total=${TOTAL_S:-575}
mkdir -p "$out"
log=$out/log.txt
: >"$log"
commit=(--commit "$(cat "$box/commit" 2>/dev/null || echo unknown)")

left() { echo $((total - SECONDS)); }
# step NAME SECONDS COMMAND...: its output goes to the log, its exit code and time to the summary.
step() {
  local name=$1 limit=$2 began=$SECONDS code=0
  shift 2
  [ "$(left)" -lt "$limit" ] && limit=$(left)
  [ "$limit" -lt 5 ] && { echo "-- $name: no time left"; return; }
  echo "#### $name" >>"$log"
  timeout -k 3 "$limit" "$@" >>"$log" 2>&1 || code=$?
  echo "-- $name: exit $code, $((SECONDS - began)) s (at $SECONDS)"
}
# In the background, with an output of its own that comes into the log when all have ended.
aside() {
  local name=$1 limit=$2
  shift 2
  [ "$(left)" -lt "$limit" ] && limit=$(left)
  [ "$limit" -lt 5 ] && { echo "-- $name: no time left"; return; }
  timeout -k 3 "$limit" "$@" >"$out/$name.part" 2>&1 &
}
has() { command -v "$1" >/dev/null; }

library=$(timeout 10 find / -xdev -name libcublasLt.so.13 2>/dev/null | head -1)
[ -n "$library" ] && export LD_LIBRARY_PATH="$(dirname "$library")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
echo "cuBLASLt: ${library:-none}"
has nvidia-smi && nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,temperature.gpu,power.draw,persistence_mode \
  --format=csv,noheader | tee -a "$log"

step fragments 15 "$gpu" fragments --json "$out/fragments.json" --compare "$box/emulated.json"
tail -3 "$log" | cut -c1-160
step probe 15 "$gpu" probe
grep -a '"bits_differ"\|emulated, and times' "$log" | tail -1

# Correctness: every family of checks in a process of its own, for the references are computed on one core. Nothing is timed now.
began=$SECONDS
aside check-gemm 100 "$gpu" check "${shapes[@]}" --deadline 85 "${commit[@]}" --only gemm
aside check-attention 100 "$gpu" check "${shapes[@]}" --deadline 85 "${commit[@]}" --only attention
aside check-rows 100 "$gpu" check "${shapes[@]}" --deadline 85 "${commit[@]}" --only RoPE --only embed --only gated --only residual \
  --only cap
aside check-sampling 100 "$gpu" check "${shapes[@]}" --deadline 85 "${commit[@]}" --only sampling
aside invariance 100 "$gpu" invariance "${shapes[@]}" --deadline 85 "${commit[@]}"
wait
echo "-- checks and invariance: $((SECONDS - began)) s (at $SECONDS)"
for part in "$out"/*.part; do
  [ -f "$part" ] || break
  echo "#### $(basename "$part" .part)" >>"$log"
  cat "$part" >>"$log"
  echo "   $(basename "$part" .part): $(tail -1 "$part" | cut -c1-120)"
done
rm -f "$out"/*.part
grep -a '^WRONG' "$log" | head -12 | cut -c1-300

# Times: alone on the device, most important rows first. A wrong kernel's time is still worth knowing.
if [ "$mode" != --emulated ]; then
  step bench 190 "$gpu" bench --deadline 175 "${commit[@]}" --json "$out/bench.json"
  step model 60 "$gpu" model --deadline 40 "${commit[@]}" --json "$out/model.json"
  step vendor 50 "$gpu" model --no-invariant --deadline 35 "${commit[@]}" --json "$out/vendor.json"
  step gpu_test 60 "$box/gpu_test" --gtest_brief=1
  grep -aE '^\[  (FAILED|PASSED)' "$log" | tail -8 | cut -c1-160
  if has ncu; then
    sections="--section SpeedOfLight --section Occupancy --section LaunchStats --section MemoryWorkloadAnalysis --section WarpStateStats
      --section InstructionStats"
    profile() {  # KERNEL ROW: the second launch of a kernel in the bench row that holds this text
      # shellcheck disable=SC2086
      step "ncu $1" 25 ncu --clock-control none $sections -k "regex:$1" --launch-skip 2 -c 1 --kill yes --log-file "$out/ncu-$1.part" \
        "$gpu" bench --only "$2"
    }
    profile gemm_tiled "GEMM, gate+up, M 2048"
    profile attend_items "decode attention, bf16, b64, 8k"
    profile gemm_skinny "GEMM, gate+up, M 16"
    profile attend_tiles "prefill attention, causal, 4k"
    cat "$out"/ncu-*.part >"$out/ncu.txt" 2>/dev/null
    rm -f "$out"/ncu-*.part
  fi
  if has compute-sanitizer; then
    for tool in memcheck racecheck initcheck; do
      step "$tool" 60 compute-sanitizer --tool "$tool" --print-limit 5 --error-exitcode 9 "$gpu" check --small --deadline 45
    done
    grep -aE 'ERROR SUMMARY|RACECHECK SUMMARY|Invalid|hazard' "$log" | sort | uniq -c | head -6 | cut -c1-160
  fi
fi

has python3 && python3 - "$out" <<'PYTHON'
import json, pathlib, sys

# The rows of the machine, those far from their prediction, and those that missed a gate: what decides what is built next.
for name in ("bench", "model", "vendor"):
    path = pathlib.Path(sys.argv[1]) / f"{name}.json"
    if not path.exists():
        continue
    rows = json.loads(path.read_text()).get("rows", [])
    measured = [r for r in rows if "measured_us" in r]
    print(f"== {name}: {len(measured)} of {len(rows)} rows measured")
    kept = [r for r in rows if name != "bench" or "problem" in r or r["kernel"].startswith(("ceiling", "machine"))
            or r["verdict"] in ("MISSED", "unsteady") or not 0.75 < r["measured_us"] / (r["predicted_us"] * r["scale"]) < 1.33]
    for r in kept[:44 if name == "bench" else 9]:
        what = f"{r['kernel'][:27]:27} {r['shape'][:21]:21}"
        print(what, f"{r['measured_us']:9.1f} us, {r['percent_of_floor']:4.0f} % of floor, predicted {r['predicted_us'] * r['scale']:8.1f}, "
              f"{r['verdict']}" if "measured_us" in r else r["problem"][:60])
PYTHON
has nvidia-smi && nvidia-smi --query-gpu=clocks.sm,clocks.mem,temperature.gpu,clocks_throttle_reasons.active --format=csv,noheader
du -sh "$out" | cut -f1
exit 0
