"""Everything that only a machine with a GPU can tell, by one command.

    pip install -e '.[cuda13,test,bench]'      # or cuda12; bench brings torch, to compare with
    python tools/gpu_check.py

1. The tests that take a device, on the real CuPy.
2. The loss curve of 200 training steps on the CPU and on the GPU. In float64 they are the same
   mathematics in another order of summation: rounding alone moves them apart by some 1e-15. In
   float32 rounding grows to 10% by step 200 (it does between two orders on one CPU, too), so the
   beginning must agree and the end be as low.
3. Training and inference speed beside torch, with TF32 off and on for both (``gpu_timings.py``).

The result goes to results/gpu/<device>.json. Exit code: 0 all is well, 1 something is not (the
file says what), 2 there is no usable GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import tinycompress as tc
from tinycompress import backend

ROOT = Path(__file__).parents[1]
STEPS, BATCH_SIZE = 200, 128
BATCHES = (64, 128, 256, 512, 1024, 2048, 4096)
TOLERANCE_FLOAT64 = 1e-9  # relative, over the whole curve
TOLERANCE_FLOAT32 = 1e-4  # relative, over the first BEGINNING steps
BEGINNING = 25


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        backend.require_cuda()
    except backend.DeviceError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    report: dict[str, Any] = describe(sys.argv if arguments is None else arguments)
    if "tests" in options.parts:
        report["tests"] = run_tests()
    if "curves" in options.parts:
        report["curves"] = compare_curves(options.steps)
    if "timings" in options.parts:
        report["timings"] = run_timings(options.batches)
    report["ok"] = all(report.get(part, {"ok": True})["ok"] for part in ("tests", "curves"))
    path = write(report, options.output)
    print(f"{path}: {'all is well' if report['ok'] else 'NOT all is well'}")
    return 0 if report["ok"] else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("tests", "curves", "timings")
    parser.add_argument("parts", nargs="*", default=list(parts), metavar="|".join(parts))
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "gpu")
    parser.add_argument("--steps", type=int, default=STEPS, help="length of the loss curves")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sizes to time")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(parts):
        parser.error(f"unknown part {', '.join(sorted(unknown))}: choose from {', '.join(parts)}")
    return options


# ------------------------------------------------------------------------- what this machine is


def describe(arguments: list[str]) -> dict[str, Any]:
    """The head of the report: commit, versions, device."""
    cupy = backend.import_cupy()
    runtime = cupy.cuda.runtime
    name = runtime.getDeviceProperties(0)["name"]
    return {
        "name": "gpu-check",
        "what": "device tests, CPU and GPU loss curves, speed beside torch",
        "command": "python tools/gpu_check.py " + " ".join(arguments[1:]),
        "commit": commit(),
        "device": name.decode() if isinstance(name, bytes) else name,
        "versions": {
            "python": platform.python_version(),
            "cupy": cupy.__version__,
            "cuda_runtime": runtime.runtimeGetVersion(),
            "cuda_driver": runtime.driverGetVersion(),
            **{package: version(package) for package in ("numpy", "tinycompress", "torch")},
        },
    }


def commit() -> str:
    """The commit that is checked out; "-dirty" when files differ from it."""

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", *command], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    dirty = "-dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "HEAD") or "unknown") + dirty


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def write(report: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join("".join(c if c.isalnum() else " " for c in report["device"].lower()).split())
    path = folder / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


# ---------------------------------------------------------------------------------- the three parts


def run_tests() -> dict[str, Any]:
    """The tests that take a device, on the real CuPy; counts and the names of those that failed."""
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "--device", "cuda", "-m", "device", "-q"]
        code = subprocess.run([*command, f"--junitxml={xml}"], cwd=ROOT, check=False).returncode
        return {"ok": code == 0, "exit_code": code, **(read_junit(xml) if xml.exists() else {})}


def read_junit(path: Path) -> dict[str, Any]:
    suite = ET.parse(path).getroot().find("testsuite")
    assert suite is not None
    counts = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.attrib['classname']}::{case.attrib['name']}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return {**counts, "failed": failed, "seconds": float(suite.attrib["time"])}


def compare_curves(steps: int = STEPS, device: str = "cuda") -> dict[str, Any]:
    """The losses of the same training on the CPU and on ``device``, in both precisions."""
    train, _ = tc.data.mnist()
    result: dict[str, Any] = {}
    for dtype, compared, tolerance in (
        ("float64", steps, TOLERANCE_FLOAT64),
        ("float32", min(steps, BEGINNING), TOLERANCE_FLOAT32),
    ):
        cpu, gpu = (loss_curve(place, dtype, steps, train) for place in ("cpu", device))
        difference = np.abs(np.subtract(cpu, gpu)) / np.maximum(np.abs(cpu), 0.01)
        ends = [float(np.mean(curve[-20:])) for curve in (cpu, gpu)]
        result[dtype] = {
            "ok": bool(difference[:compared].max() <= tolerance and ends[1] <= 1.25 * ends[0]),
            "compared_steps": compared,
            "largest_relative_difference": float(difference[:compared].max()),
            "tolerance": tolerance,
            "mean_of_last_20": {"cpu": ends[0], device: ends[1]},
            "cpu": cpu,
            device: gpu,
        }
        print(f"loss curves in {dtype}: {'same' if result[dtype]['ok'] else 'DIFFERENT'}")
    return {"ok": all(part["ok"] for part in result.values()), "steps": steps, **result}


def loss_curve(device: str, dtype: str, steps: int, train: Any) -> list[float]:
    """Losses of the article's CNN under SGD with momentum; weights and batches from seed 0."""
    tc.manual_seed(0)
    model = tc.models.ArticleCNN().to(np.dtype(dtype)).to(device)
    params = list(model.parameters())
    optimizer = tc.optim.SGD(params, lr=0.05, momentum=0.9)
    losses: list[Any] = []
    epoch = 0
    while len(losses) < steps:
        for images, labels in tc.data.batches(train, BATCH_SIZE, seed=0, epoch=epoch):
            batch = [backend.to_device(a, device) for a in (images.astype(dtype), labels)]
            step = tc.train.value_and_grad(tc.train.Supervised(), model, batch)
            for p, g in zip(params, step.gradients, strict=True):
                p.grad = g
            optimizer.step()
            losses.append(step.loss)
            if len(losses) == steps:
                break
        epoch += 1
    return [float(loss) for loss in losses]


def run_timings(batches: list[int]) -> dict[str, Any]:
    """Two processes, because CuPy reads CUPY_TF32 when it is imported."""
    result: dict[str, Any] = {}
    for tf32 in (False, True):
        command = [sys.executable, str(ROOT / "tools" / "gpu_timings.py"), *map(str, batches)]
        environment = os.environ | {"CUPY_TF32": str(int(tf32))}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"gpu_timings.py ended with {done.returncode}")
        result["tf32" if tf32 else "float32"] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    raise SystemExit(main())
