"""What the article's formulas and listings do when they are run, beside what this project does.

    python tools/article_listings.py              # all sections, a good minute on two cores
    python tools/article_listings.py 4.1 4.3      # some, by the article's own numbers
    python tools/article_listings.py --update     # and write the output into docs/article.md

The listings are in ``article_code.py``. The model is the article's CNN, trained on the bundled
sample of MNIST, and accuracy is that on all 10,000 test images. The numbers do not depend on how
many cores there are; on another processor the last digits of a product may differ, and with them a
few images.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
from article_code import Net, listing_distill, listing_prune, listing_quantize
from article_models import (
    accuracy,
    affine,
    answers,
    attempt,
    by_formula,
    digits,
    file_bytes,
    pruned,
    quantized,
    rate,
    student,
    table,
    train,
    trained,
    zeros,
)

import tinycompress as tc
from tinycompress import functional as F, nn
from tinycompress.compress.quantize import article_dequantize, article_quantize, article_zero

PAGE = Path(__file__).parents[1] / "docs" / "article.md"
SEEDS = (0, 1, 2)


# ------------------------------------------------------------------------------- the sections


def combinations() -> list[str]:
    distilled = student(0, True)
    thin_student = train(tc.prune(distilled, 0.5), epochs=1, lr=0.02)
    models = {
        "article's CNN": trained(),
        "quantized, 8 bits": quantized(trained(), 8),
        "pruned 90%": pruned(),
        "pruned 90%, 8 bits": quantized(pruned(), 8),
        "pruned 90%, 4 bits": quantized(pruned(), 4),
        "distilled": distilled,
        "distilled, pruned 50%": thin_student,
        "distilled, pruned 50%, 8 bits": tc.quantize(thin_student),
    }
    rows = []
    for name, model in models.items():
        counts = tc.summary(model, (1, 28, 28))
        shown = [f"{counts.nonzero:,}", f"{counts.macs:,}", file_bytes(model)]
        rows.append([name, accuracy(model), *shown])
    return table(["model", "accuracy", "nonzero parameters", "MACs", "file bytes"], *rows)


def formula() -> list[str]:
    w = trained().get_submodule("fc1").weight.data
    codes = article_quantize(w, 8)
    half_step = (codes.maximum - codes.minimum) / 255 / 2
    lines = [
        f"fc1.weight: {w.size:,} numbers from {codes.minimum:.4f} to {codes.maximum:.4f}, 8 bits",
        f"  half a step {half_step:.6f}, error {np.abs(article_dequantize(codes) - w).max():.6f}",
        f"  0 comes back as {article_zero(w, 8):.6f}",
        "",
    ]
    rows = []
    for bits in (8, 4, 2):
        models = [by_formula(trained(), bits), tc.quantize(trained(), affine(bits))]
        models.append(quantized(trained(), bits))
        rows.append([f"accuracy, {bits} bits", *map(accuracy, models)])
    models = [by_formula(pruned(), 8), tc.quantize(pruned(), affine(8)), quantized(pruned(), 8)]
    rows.append([f"zero weights, pruned model: {zeros(pruned())}", *map(zeros, models)])
    head = ["", "the formula", "affine, per tensor", "symmetric, per channel"]
    return lines + table(head, *rows)


def criteria() -> list[str]:
    names = ("magnitude", "gradient", "random")
    rows = []
    for sparsity in (0.5, 0.9):
        data = digits()[0].take(1000)
        thin = [tc.prune(trained(), sparsity, importance=name, data=data) for name in names]
        rows.append([f"{sparsity:.0%} of the weights are 0", *map(accuracy, thin)])
    lines = table(["", *names], *rows)
    return [*lines, "", f"90% by magnitude, retrained for one epoch: {accuracy(pruned())}"]


def shapes() -> list[str]:
    net = Net()
    fits = [s for s in range(28, 128) if ((s - 2) // 2 - 2) // 2 == 16]
    lines = []
    for n in (1, 64, 256):
        x = np.zeros((n, 1, 28, 28), np.float32)
        lines.append(f"{n:>3} images: {attempt(lambda x=x: net(x).shape)}")
    loss = attempt(lambda: F.cross_entropy(net(x), np.zeros(len(x), np.int64)))
    return [
        *lines,
        f"their loss: {loss}",
        f"fc1 has {net.fc1.weight.size:,} weights; for 28×28 digits it needs "
        f"{trained().get_submodule('fc1').weight.size:,}",
        f"images that the listing fits: {fits[0]}×{fits[0]} to {fits[-1]}×{fits[-1]}",
    ]


def quantizing() -> list[str]:
    whole = listing_quantize(trained(), 8)
    no_weights, no_biases = trained().copy(), trained().copy()
    for name, layer in whole.named_modules():
        if hasattr(layer, "weight"):
            no_weights.get_submodule(name).weight = layer.weight
            no_biases.get_submodule(name).bias = layer.bias
    models = {
        "trained": trained(),
        "the listing, num_bits = 8": whole,
        "  only what it does to weights": no_weights,
        "  only what it does to biases": no_biases,
        "the listing, num_bits = -8": listing_quantize(trained(), -8),
        "tc.quantize, 8 bits": quantized(trained(), 8),
        "tc.quantize, 4 bits": quantized(trained(), 4),
    }
    rows = [
        [name, zeros(m), zeros(m, "bias"), accuracy(m), file_bytes(m)] for name, m in models.items()
    ]
    lines = []
    for kind in ("weight", "bias"):
        sizes = [abs(p.data).max() for name, p in trained().named_parameters() if kind in name]
        lines.append(f"the largest {kind}: {max(sizes):.2f}")
    return lines + table(["model", "zero weights", "zero biases", "accuracy", "file bytes"], *rows)


def distilling() -> list[str]:
    students = []
    for teacher in (trained(), None):
        tc.manual_seed(0)
        learned = listing_distill(teacher, tc.models.TinyCNN(), digits()[0].take(640))
        students.append(learned.state_dict())
    same = all(np.array_equal(students[0][name], students[1][name]) for name in students[0])
    size = tc.summary(Net(), (1, 70, 70)).parameters
    lines = [
        f"parameters: the listing's teacher {size:,}, its student {size:,}",
        f"its loop with the trained teacher and with None ends with the same student: {same}",
        "",
    ]
    rows = []
    for how, distilled in (("labels alone", False), ("tc.distill, T = 4, alpha = 0.9", True)):
        group = [student(seed, distilled) for seed in SEEDS]
        rates = [rate(model) for model in group]
        says_the_same = (answers(group[0]) == answers(trained())).mean()
        rows.append([how, *(f"{x:.2%}" for x in (*rates, statistics.mean(rates), says_the_same))])
    head = ["TinyCNN", *(f"seed {s}" for s in SEEDS), "mean", "seed 0 says as the teacher"]
    return [*lines, *table(head, *rows), "", f"the teacher: {accuracy(trained())}"]


def pruning() -> list[str]:
    lines = [
        f"as it stands: {attempt(lambda: listing_prune(trained(), 0.5))}",
        "with weight.device repaired: "
        + attempt(lambda: listing_prune(trained(), 0.5, repaired="only the device")),
    ]
    square = listing_prune(nn.Sequential(nn.Linear(100, 100)), 0.5, repaired="only the device")
    lines += [f"Linear(100, 100): no error, and its bias is {square[0].bias.shape} now", ""]
    rows = []
    for ratio in (0.5, 0.9, 0.1):
        model = listing_prune(trained(), ratio, repaired=True)
        rows.append([f"the listing repaired, pruning_ratio = {ratio}", zeros(model)])
        rows[-1] += [accuracy(model), *(after_an_epoch(model) if ratio != 0.5 else ["", ""])]
    for importance in ("random", "magnitude"):
        model = tc.prune(trained(), 0.9, importance=importance)
        rows.append([f"tc.prune(model, 0.9), {importance}", zeros(model), accuracy(model)])
        rows[-1] += after_an_epoch(pruned()) if importance == "magnitude" else ["", ""]
    head = ["", "zero weights", "accuracy", "zeros after an epoch", "accuracy"]
    return lines + table(head, *rows)


def after_an_epoch(model: nn.Module) -> list[str]:
    """Zeros and accuracy when ``model`` is trained further."""
    if model is not pruned():  # that one was
        model = train(model.copy(), epochs=1, lr=0.05)
    return [zeros(model), accuracy(model)]


SECTIONS: dict[str, Callable[[], list[str]]] = {
    "2": combinations,
    "3.1": formula,
    "3.3": criteria,
    "4": shapes,
    "4.1": quantizing,
    "4.2": distilling,
    "4.3": pruning,
}


# --------------------------------------------------------------------------------- the command


def updated(page: str, section: str, lines: list[str]) -> str:
    """``page`` with the output of ``section`` in the block that begins with its command."""
    command = re.escape(f"$ python tools/article_listings.py {section}\n")
    found = re.compile(f"(```text\n{command})(.*?)(```)", re.DOTALL)
    if not found.search(page):
        raise SystemExit(f"{PAGE.name} has no block for section {section}")
    return found.sub(lambda m: m[1] + "\n".join(lines) + "\n" + m[3], page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="|".join(SECTIONS))
    parser.add_argument("--update", action="store_true", help="write into docs/article.md")
    options = parser.parse_args()
    for section in options.sections or SECTIONS:
        if section not in SECTIONS:
            parser.error(f"there is no section {section}; choose from {', '.join(SECTIONS)}")
        lines = SECTIONS[section]()
        print(f"--- {section}", *lines, "", sep="\n", flush=True)
        if options.update:
            PAGE.write_text(updated(PAGE.read_text("utf-8"), section, lines), "utf-8")


if __name__ == "__main__":
    main()
