"""Where state lies: one folder, `SIDREC_HOME`, default `./.sidrec`."""

import os
from pathlib import Path


def home() -> Path:
    """Return the folder that holds all state, as an absolute path (it need not exist yet)."""
    return Path(os.environ.get("SIDREC_HOME", ".sidrec")).absolute()


def steps_dir() -> Path:
    """Return the folder of step results: `steps/<step>/<key>/`, `done.json` written last."""
    return home() / "steps"


def runs_dir() -> Path:
    """Return the folder of runs: one folder a slot, with its steps and its result."""
    return home() / "runs"


def feast_dir() -> Path:
    """Return the folder of the feature store's registry, online store and Parquet sources."""
    return home() / "feast"


def registry_dir() -> Path:
    """Return the folder that BentoML's stores live in (`BENTOML_HOME`)."""
    return home() / "registry"


def ledger_path() -> Path:
    """Return the append-only, hash-chained ledger: an SQLite file."""
    return home() / "ledger" / "ledger.db"


def keys_dir() -> Path:
    """Return the folder of the Ed25519 signing key pair of this installation."""
    return home() / "keys"


def triton_repository_dir() -> Path:
    """Return Triton's model repository: `recommend/<revision>/`."""
    return home() / "triton" / "repository"


def serving_dir() -> Path:
    """Return the folder of the running server's state file and logs."""
    return home() / "serving"


def exposures_dir() -> Path:
    """Return the folder of exposure segments (Parquet)."""
    return home() / "exposures"


def shadow_dir() -> Path:
    """Return the folder of exposure segments of answers that a shadow gave and nobody saw."""
    return home() / "shadow"


def experiments_dir() -> Path:
    """Return the folder of frozen plans: `<experiment>/plan.json`."""
    return home() / "experiments"


def outcomes_dir() -> Path:
    """Return the folder of outcome segments (Parquet)."""
    return home() / "outcomes"


def monitoring_dir() -> Path:
    """Return the folder of Evidently's workspace and the drift reports."""
    return home() / "monitoring"


def replies_path() -> Path:
    """Return what language models on a server have written, whichever run asked for it."""
    return home() / "teacher" / "replies.jsonl"


def takedown_path() -> Path:
    """Return the takedown list: one item id a line, kept out of every answer at once."""
    return home() / "takedown.txt"
