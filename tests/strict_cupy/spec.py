"""The names and signatures of the real CuPy (``cupy_api.json``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SPEC: dict[str, Any] = json.loads(Path(__file__).with_name("cupy_api.json").read_text())
