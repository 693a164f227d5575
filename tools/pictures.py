"""How the pictures of docs/ look, and where they go. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

FOLDER = Path("docs/images")

plt.rcParams.update({"svg.hashsalt": "tinycompress", "svg.fonttype": "none", "font.size": 9})


def save(figure: Figure, name: str) -> None:
    """As ``docs/images/NAME.svg``, the same bytes each time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)
