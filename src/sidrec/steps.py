"""Step results on disk: a step with the same inputs, config and code is done once.

A step works in `steps/<step>/<key>/`, where `key` is the SHA-256 of its inputs' digests, the recipe
sections it reads and the code. `done.json` is written last; a folder without it is a killed step's, and the
step resumes there from whatever checkpoints it left. Inside `planning`, nothing is done: each call only says what
would be.
"""

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidrec import files, home
from sidrec.clock import utc_now_iso
from sidrec.errors import CheckFailedError, SidrecError
from sidrec.process import die_with_parent
from sidrec.recipe import Recipe, parse_recipe

Summary = dict[str, Any]
StepFunction = Callable[[Recipe, Mapping[str, Path], Path], Summary]

DONE = "done.json"
RUN_DIR_VARIABLE = "SIDREC_RUN_DIR"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a step would do.

    Args:
        key: of its folder; None where an input is not there yet.
        why: it would run, "" where an identical run's result is reused.
        seconds: that its newest finished run took, None before the first.
        inputs: where each of its inputs lies, or will.
    """

    step: str
    key: str | None
    why: str
    folder: Path | None
    seconds: float | None
    inputs: Mapping[str, str]

    @property
    def reused(self) -> bool:
        """Whether nothing would be computed."""
        return not self.why


_planned: ContextVar[list[Outlook] | None] = ContextVar("planned", default=None)


@contextmanager
def planning() -> Iterator[list[Outlook]]:
    """Yield a list that each `execute` in the body adds its outlook to, and does nothing else.

    An input whose path does not exist stands for what a step before it has yet to write.
    """
    outlooks: list[Outlook] = []
    token = _planned.set(outlooks)
    try:
        yield outlooks
    finally:
        _planned.reset(token)


def execute(
    step: str,
    run: StepFunction,
    *,
    recipe: str,
    sections: Sequence[str],
    inputs: Mapping[str, str | Path],
    outputs: Mapping[str, str | Path],
    still_holds: Callable[[Path], bool] = lambda folder: True,
) -> Summary:
    """Return the step's summary, from an earlier identical run where there is one.

    `run(recipe, inputs, folder)` writes one file or folder named after each key of `outputs` into
    `folder`; each path in `outputs` then becomes a link to it. Under torchrun every rank calls this alike.

    Args:
        recipe: the recipe's YAML text.
        sections: recipe sections (or top-level values) that the step reads; others do not change its key.
        still_holds: for a step with an effect outside its folder, whether that effect still stands.

    Raises:
        SidrecError: whatever the step raised; it is also written to the run's step log.
    """
    parsed = parse_recipe(recipe)
    if (outlooks := _planned.get()) is not None:
        outlooks.append(_outlook(step, parsed, sections, inputs, still_holds))
        return {}
    if RUN_DIR_VARIABLE in os.environ:
        die_with_parent(step)
    digests = {name: _digest(Path(path)) for name, path in sorted(inputs.items())}
    key = _key(step, parsed, sections, digests)
    folder = home.steps_dir() / step / key
    started = time.monotonic()
    reused = (folder / DONE).exists() and still_holds(folder)
    if reused:
        print(f"{step}: already done for the same inputs, config and code ({key[:12]}); reused", flush=True)
        done = files.read_json(folder / DONE)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            paths = {name: Path(path).resolve() for name, path in inputs.items()}
            summary = run(parsed, paths, folder)
            if os.environ.get("RANK", "0") != "0":
                return summary  # torchrun's rank 0 writes what all of them made
            done = _finish(step, key, folder, digests, outputs, summary, started, _settings(step, parsed, sections))
        except SidrecError as error:
            _log_step({"step": step, "key": key, "result": "failed", "seconds": _since(started), **error.as_dict()})
            raise
    for name, path in outputs.items():
        _link(folder / name, Path(path))
    _log_step(
        {
            "step": step,
            "key": key,
            "result": "reused" if reused else "skipped" if "skipped" in done["summary"] else "ok",
            "seconds": _since(started),
            "folder": str(folder),
            "summary": done["summary"],
        }
    )
    summary_out: Summary = done["summary"]
    return summary_out


def _finish(
    step: str,
    key: str,
    folder: Path,
    digests: Mapping[str, str],
    outputs: Mapping[str, str | Path],
    summary: Summary,
    started: float,
    settings: Mapping[str, str],
) -> Summary:
    missing = [name for name in outputs if not (folder / name).exists()]
    if missing:
        raise CheckFailedError(f"step {step} wrote no {', '.join(missing)}", evidence=folder)
    done = {
        "step": step,
        "key": key,
        "inputs": dict(digests),
        "settings": dict(settings),
        "outputs": {name: files.sha256_tree(folder / name) for name in outputs},
        "summary": summary,
        "seconds": _since(started),
        "finished_at": utc_now_iso(),
    }
    files.write_json_atomic(folder / DONE, done)
    return done


def _key(step: str, recipe: Recipe, sections: Sequence[str], digests: Mapping[str, str]) -> str:
    config = {name: recipe.section(name) for name in sorted(sections)}
    content = {"step": step, "config": config, "inputs": dict(digests), "code": code_digest(step)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _settings(step: str, recipe: Recipe, sections: Sequence[str]) -> dict[str, str]:
    """Return a short digest of the code and of each recipe section: enough to say later what has changed."""
    values = {f"recipe's {name}": recipe.section(name) for name in sections} | {"code": code_digest(step)}
    return {
        name: files.sha256_bytes(json.dumps(value, sort_keys=True, default=str).encode())[:16]
        for name, value in values.items()
    }


def _outlook(
    step: str,
    recipe: Recipe,
    sections: Sequence[str],
    inputs: Mapping[str, str | Path],
    still_holds: Callable[[Path], bool],
) -> Outlook:
    newest = _newest(step)
    where = {name: str(path) for name, path in inputs.items()}
    seconds = None if newest is None else float(newest["seconds"])
    pending = sorted(name for name, path in inputs.items() if not Path(path).exists())
    if pending:
        return Outlook(step, None, f"waits for {', '.join(pending)}", None, seconds, where)
    digests = {name: _digest(Path(path)) for name, path in sorted(inputs.items())}
    key = _key(step, recipe, sections, digests)
    folder = home.steps_dir() / step / key
    if (folder / DONE).exists():
        why = "" if still_holds(folder) else "its effect outside its folder no longer stands"
        return Outlook(step, key, why, folder, float(files.read_json(folder / DONE)["seconds"]), where)
    return Outlook(step, key, _changed(newest, digests, _settings(step, recipe, sections)), folder, seconds, where)


def _newest(step: str) -> dict[str, Any] | None:
    finished = sorted((home.steps_dir() / step).glob(f"*/{DONE}"), key=lambda path: path.stat().st_mtime)
    return dict(files.read_json(finished[-1])) if finished else None


def _changed(before: Mapping[str, Any] | None, digests: Mapping[str, str], settings: Mapping[str, str]) -> str:
    """Return what is new since the step's newest finished run."""
    if before is None:
        return "never done"
    known = before["inputs"] | before.get("settings", {})
    changed = [name for name, digest in {**digests, **settings}.items() if known.get(name, digest) != digest]
    appeared = sorted(set(digests) ^ set(before["inputs"]))
    named = [*changed, *(f"{name} (there or not)" for name in appeared)]
    return f"changed since it was last done: {', '.join(named)}" if named else "done before, and its folder is gone"


@functools.cache
def code_digest(step: str) -> str:
    """Return the SHA-256 over the library's Python files and those of this step's component."""
    library = Path(__file__).parent
    # No step's result depends on the command line or on the ledger.
    own = files.sha256_sources(library, without=frozenset({"cli", "release"}))
    return own + files.sha256_sources(library.parents[1] / "components" / step)


def _digest(path: Path) -> str:
    """Return the digest of an input, from its step's `done.json` where a step made it."""
    real = path.resolve()
    done = real.parent / DONE
    if done.exists():
        recorded = files.read_json(done)["outputs"].get(real.name)
        if recorded is not None:
            return str(recorded)
    return files.sha256_tree(real)


def _link(target: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() or link.is_file():
        link.unlink()
    elif link.is_dir():
        shutil.rmtree(link)
    link.symlink_to(target)


def _log_step(row: Mapping[str, Any]) -> None:
    """Append a row to the run's step log, where `sidrec run` reads what happened."""
    run_dir = os.environ.get(RUN_DIR_VARIABLE)
    if run_dir is None:
        return
    with (Path(run_dir) / "steps.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, default=str) + "\n")


def _since(started: float) -> float:
    return round(time.monotonic() - started, 2)
