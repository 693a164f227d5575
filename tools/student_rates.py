"""Which learning rates suit the demo's student, alone and distilled, on digits that it never saw.

    python tools/student_rates.py --data-dir FOLDER

Trains on the bundled sample (the first 10,000 training images) and measures on the last 10,000
training images of the full set, so the test images take no part. A few minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from tinycompress import models
from tinycompress.cli import demo
from tinycompress.data import Dataset, mnist
from tinycompress.train import evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="the four IDX files")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    full, _ = mnist(full=True, data_dir=arguments.data_dir, download=False)
    sample, held_out = full.take(10_000), Dataset(*full[50_000:], name="held-out")
    studio = demo.Studio(sample, seed=0, workers=None, show=demo.Narrator())
    teacher = studio.train(models.ArticleCNN, epochs=6)
    print(f"teacher: {evaluate(teacher, held_out).error:.2f}% wrong")
    lesson = studio.lesson(teacher)
    for kind, rates in {"alone": (0.03, 0.1, 0.2), "distilled": (0.02, 0.03, 0.1)}.items():
        data = lesson if kind == "distilled" else None
        for rate in rates:
            demo.STUDENT_RATE[kind] = rate
            students = [studio.student(seed, data) for seed in range(arguments.seeds)]
            errors = [evaluate(student, held_out).error for student in students]
            each = " ".join(f"{e:.2f}" for e in errors)
            mean = statistics.mean(errors)
            print(f"{kind:9} rate {rate:4}: {mean:.2f}% wrong ({each})", flush=True)


if __name__ == "__main__":
    main()
