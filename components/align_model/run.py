"""Align the fitted model, where its system has such a stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidrec.recipe import Recipe, build

SECTIONS = ("kind", "model", "training", "repeat", "seed", "threads")


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/model_aligned`; the summary says `skipped` and why where there is nothing to align."""
    return build(recipe).align(inputs["model"], folder)
