"""Run the suite as other processors would compute it: ``make test-kernels``.

    python tests/kernels.py [--only NAME,NAME] [--list] [arguments of pytest]

One setting at a time, each against the same suite, with a line for each; the exit status is 1 if
any failed. What a setting changes, as the bits of results say (x86, wheels of PyPI):

* ``ATEN_CPU_CAPABILITY``: torch's own loops, such as sums, softmax, exp and tanh, and on "default"
  the numbers that ``torch.randn`` draws, in their last bits.
* ``ONEDNN_MAX_CPU_ISA``: convolutions.
* ``MKL_CBWR``: torch's matrix products and decompositions, which the wheels take from MKL.
* ``OPENBLAS_CORETYPE``: matrix products and decompositions of numpy and scipy and the inside of
  faiss, three copies of OpenBLAS. A copy that does not know the name, such as Zen in numpy's and
  scipy's, keeps its own choice; Prescott is without AVX.
* ``NPY_DISABLE_CPU_FEATURES``: numpy's own exp and the like.
* two threads: decompositions of scipy. Sums and products of torch kept their bits where tried.
* ``SKSPURIOUS_TEST_SEED``: other data of the same laws, see conftest.py.

Variables of one setting are taken away from the others, also where they were set outside. A
setting is skipped where the processor lacks its instructions: it could only crash.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Name, variables, and the least capability of torch ("", "AVX2", "AVX512") on such a processor.
SETTINGS = {
    "as-it-is": ({}, ""),
    "aten-default": ({"ATEN_CPU_CAPABILITY": "default"}, ""),
    "aten-avx2": ({"ATEN_CPU_CAPABILITY": "avx2"}, "AVX2"),
    "aten-avx512": ({"ATEN_CPU_CAPABILITY": "avx512"}, "AVX512"),
    "onednn-sse41": ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, ""),
    "aten-default-onednn-sse41": (
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
        "",
    ),
    "mkl-compatible": ({"MKL_CBWR": "COMPATIBLE"}, ""),
    "openblas-prescott": ({"OPENBLAS_CORETYPE": "Prescott"}, ""),
    "openblas-haswell": ({"OPENBLAS_CORETYPE": "Haswell"}, "AVX2"),
    "openblas-zen": ({"OPENBLAS_CORETYPE": "Zen"}, "AVX2"),
    "openblas-skylakex": ({"OPENBLAS_CORETYPE": "SkylakeX"}, "AVX512"),
    "numpy-baseline": ({"NPY_DISABLE_CPU_FEATURES": "found"}, ""),
    "two-threads": ({"OMP_NUM_THREADS": "2", "SKSPURIOUS_TEST_THREADS": "2"}, ""),
    "seed-1": ({"SKSPURIOUS_TEST_SEED": "1"}, ""),
    "seed-2": ({"SKSPURIOUS_TEST_SEED": "2"}, ""),
    "seed-3": ({"SKSPURIOUS_TEST_SEED": "3"}, ""),
}
VARIABLES = sorted({name for variables, _ in SETTINGS.values() for name in variables})

PROBE = """
import numpy, scipy.linalg, torch
from threadpoolctl import threadpool_info
found = numpy.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
blas = {i["architecture"] for i in threadpool_info() if i["internal_api"] == "openblas"}
print(" ".join(found), "|", torch.backends.cpu.get_cpu_capability(), "|", ", ".join(sorted(blas)))
"""


def clean_environment():
    """The environment without the variables of any setting."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES}


def probe(environment):
    """What is in force: numpy's extensions, torch's capability, OpenBLAS's kernels."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True
    )
    numpy_found, torch_capability, openblas = done.stdout.strip("\n").split("|")
    return numpy_found.strip(), torch_capability.strip(), openblas.strip()


def lacks(least, capability):
    """Why a setting cannot run here, or an empty text."""
    if platform.machine().lower() not in ("x86_64", "amd64") and least:
        return f"this processor is a {platform.machine()}"
    ranks = {"AVX2": 1, "AVX512": 2}
    if ranks.get(least, 0) > ranks.get(capability, 0):
        return f"this processor lacks {least}"
    return ""


def run(name, arguments, numpy_found):
    """Run the suite under a setting: whether it passed, and a line that says so."""
    variables = dict(SETTINGS[name][0])
    if variables.get("NPY_DISABLE_CPU_FEATURES") == "found":
        variables["NPY_DISABLE_CPU_FEATURES"] = numpy_found
    environment = clean_environment() | variables
    _, capability, openblas = probe(environment)
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    if "SKSPURIOUS_TEST_THREADS" in variables:
        command += ["-n", "0"]  # several processes of several threads would crawl
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = done.stdout.decode(errors="replace")
    seconds = time.monotonic() - start
    verdict = "passed" if done.returncode == 0 else "FAILED"
    last = output.strip().splitlines()[-1] if output.strip() else ""
    counts = re.sub(r"^=+ | in [\d.]+s.*$", "", last)
    line = f"{verdict}  {name:26}{counts}; {seconds:.0f} s; torch {capability}, {openblas}"
    if done.returncode != 0:
        wanted = re.findall(r"^(?:FAILED|ERROR) .*$", output, flags=re.MULTILINE)
        line += "".join(f"\n        {each}" for each in wanted or output.splitlines()[-20:])
    return done.returncode == 0, line


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--only", default=",".join(SETTINGS), metavar="NAME,NAME")
    parser.add_argument("--list", action="store_true", help="name the settings and stop")
    options, arguments = parser.parse_known_args()
    if options.list:
        print("\n".join(f"{name:26}{SETTINGS[name][0]}" for name in SETTINGS))
        return 0
    numpy_found, capability, _ = probe(clean_environment())
    n_failed = 0
    for name in options.only.split(","):
        if name not in SETTINGS:
            parser.error(f"--only={options.only}: there is no {name!r}; see --list")
        reason = lacks(SETTINGS[name][1], capability)
        if not reason and name == "numpy-baseline" and not numpy_found:
            reason = "numpy uses no extensions here"
        if reason:
            print(f"skipped {name:26}{reason}", flush=True)
            continue
        passed, line = run(name, arguments, numpy_found)
        n_failed += not passed
        print(line, flush=True)
    return min(n_failed, 1)


if __name__ == "__main__":
    sys.exit(main())
