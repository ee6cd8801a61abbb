"""What a study's finished cells look like: alignment round by round, and quality against the number of slots."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sidrec import files
from sidrec.errors import UsageError
from sidrec.study.config import StudyConfig, cells_of
from sidrec.study.lines import Line, Panel, svg

# Shares that a policy is rewarded by, of whichever system; each cell has its own ones.
REWARDS = ("hits", "category_hits", "consistency")
RATIONALE = "rationale_tokens"
QUALITY = ("ndcg@10", "recall@10")


def draw(study: StudyConfig, out: Path, folder: Path, *, only: Sequence[str] = ()) -> list[Path]:
    """Write the SVG files of the cells that are finished in `out`, and return them.

    Every cell that was aligned gets `<variant>-s<seed>-alignment.svg`. Where `only` names variants that differ in the
    number of slots, `slots.svg` has their quality; a study's other variants differ in more than that.

    Args:
        only: variants to look at; none is all.

    Raises:
        UsageError: nothing of what is finished can be drawn.
    """
    wanted = [(variant, seed) for variant, seed in cells_of(study) if not only or variant in only]
    paths = [out / f"{variant}-s{seed}.json" for variant, seed in wanted]
    cells = [files.read_json(path) for path in paths if path.exists()]
    drawn = {
        f"{cell['variant']}-s{cell['seed']}-alignment.svg": alignment_figure(cell)
        for cell in cells
        if (cell.get("alignment") or {}).get("rounds")
    }
    fitted = [cell for cell in cells if "recipe" in cell]
    if only and len({slots_of(cell) for cell in fitted}) > 1:
        drawn["slots.svg"] = slots_figure(fitted)
    if not drawn:
        raise UsageError(
            f"nothing to draw of {study.name} in {out}: no finished cell was aligned, and --only names no variants of "
            "several numbers of slots",
            next_step=f"sidrec ablate, then --plots with --only VARIANT --only VARIANT of {', '.join(study.variants)}",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in drawn.items():
        files.write_text_atomic(folder / name, text)
    return [folder / name for name in drawn]


def alignment_figure(cell: Mapping[str, Any]) -> str:
    """Return a cell's alignment by round, 0 being the supervised model; rounds that a gate refused are hollow."""
    said = cell["alignment"]
    rounds = [{**said["supervised"], "value": said["supervised_value"], "refused": []}, *said["rounds"]]
    numbers = tuple(float(number) for number in range(len(rounds)))
    refused = frozenset(number for number, row in enumerate(rounds) if row["refused"])

    def panel(title: str, *names: str) -> Panel:
        lines = [Line(name, numbers, tuple(float(row[name]) for row in rounds), refused) for name in names]
        return Panel(title, "round", tuple(lines))

    panels = [
        panel("validation (NDCG@10)", "value"),
        panel("rewards, share of what there is", *(name for name in REWARDS if name in rounds[0])),
        panel("KL, nats an action", "kl"),
        panel("samples: distinct, and items", "diversity", "valid"),
    ]
    if RATIONALE in rounds[0]:
        panels.append(panel("rationale, tokens", RATIONALE))
    return svg(panels, title=f"{cell['variant']}, seed {cell['seed']}: alignment, {said['kept']} kept")


def slots_figure(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return quality against the number of reasoning steps, the mean over what has equally many."""
    kinds = list(cells[0]["metrics"])
    panels = []
    for kind in kinds:
        lines = []
        for name in QUALITY:
            values: dict[int, list[float]] = defaultdict(list)
            for cell in cells:
                values[slots_of(cell)].append(float(cell["metrics"][kind][name]))
            slots = sorted(values)
            means = tuple(sum(values[number]) / len(values[number]) for number in slots)
            lines.append(Line(name, tuple(map(float, slots)), means))
        panels.append(Panel(f"{kind} targets", "slots (reasoning steps)", tuple(lines)))
    names = ", ".join(dict.fromkeys(str(cell["variant"]) for cell in cells))
    return svg(panels, title=f"quality by number of slots: {names}")


def slots_of(cell: Mapping[str, Any]) -> int:
    """Return how many codes a cell's items have, and so how many steps a path."""
    return int(cell["recipe"]["codebook"]["num_levels"])
