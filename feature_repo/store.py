"""The feature store on disk: generations, of which the link `live` names the one that serves.

A run builds a new generation beside the live one and moves the link when it is whole, so a killed run changes
nothing and a reader never meets a half-written registry or an online store that is being filled.
"""

import json
import logging
import os
import runpy
import shutil
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import yaml

from feature_repo.feast_import import import_feast
from sidrec import files, home
from sidrec.clock import DAY_S, utc_now_iso
from sidrec.errors import ServingError, UsageError

if TYPE_CHECKING:
    import polars as pl
    from feast import FeatureStore

ONLINE_STORE_VARIABLE = "SIDREC_ONLINE_STORE"
WRITER_LOCK = "writer.lock"
MATERIALIZE_LOCK = "materialize.lock"
STATE_SCHEMA_VERSION = 1

_REPOSITORY = Path(__file__).parent
_STATE = "state.json"
_KEPT_GENERATIONS = 2
# A Redis that hangs must fail the reading thread, not hold it for ever.
_REDIS_TIMEOUT_S = 2


@dataclass(frozen=True, slots=True)
class StoreState:
    """What a generation holds; written last, when it is whole."""

    key: str
    cut: int
    history_cap: int
    max_age_days: int
    users: int
    created_at: str = ""
    schema_version: int = STATE_SCHEMA_VERSION


def sources_dir() -> Path:
    """Return the folder of the offline store's Parquet files."""
    return home.feast_dir() / "sources"


def write_source(name: str, table: "pl.DataFrame") -> None:
    """Write one source of the offline store so that a reader sees the old file or the new one.

    Its timestamps are microseconds: DuckDB 2.0 cannot cast zoned nanoseconds.
    """
    path = sources_dir() / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    table.write_parquet(partial)
    partial.replace(path)


def live_folder(feast_dir: Path) -> Path:
    """Return the generation that serves.

    Raises:
        ServingError: there is none yet.
    """
    link = feast_dir / "live"
    if not link.exists():
        raise ServingError(f"no feature store at {feast_dir}", evidence=feast_dir, next_step="sidrec run")
    return link.resolve()


def read_state(generation: Path) -> StoreState:
    """Return what a generation holds.

    Raises:
        ServingError: its state file is of another format.
    """
    values = files.read_json(generation / _STATE)
    if values.get("schema_version") != STATE_SCHEMA_VERSION:
        raise ServingError(
            f"the feature store's state has schema version {values.get('schema_version')}, "
            f"this code reads {STATE_SCHEMA_VERSION}",
            evidence=generation / _STATE,
            next_step="sidrec run",
        )
    return StoreState(**values)


def write_state(generation: Path, state: StoreState) -> None:
    """Write a generation's state: from now on it may go live."""
    files.write_json_atomic(generation / _STATE, asdict(state) | {"created_at": utc_now_iso()})


def live_key(feast_dir: Path) -> str | None:
    """Return the step key that the live generation was made by, None where no whole one is live."""
    state = feast_dir / "live" / _STATE
    return str(files.read_json(state)["key"]) if state.is_file() else None


def new_generation(key: str, *, ttl_days: int | None = None) -> Path:
    """Return the folder of a new, applied and empty generation of the store.

    Args:
        ttl_days: how long a row stays in Redis after its last write, so that neither users who left nor a killed
            run's keys fill its memory (None: for ever); SQLite's rows go with their generation.
    """
    name = f"g{key[:8]}_{time.time_ns():x}"
    folder = home.feast_dir() / "generations" / name
    folder.mkdir(parents=True)
    values = yaml.safe_load((_REPOSITORY / "feature_store.yaml").read_text(encoding="utf-8"))
    values["project"] = f"sidrec_{name}"
    if os.environ.get(ONLINE_STORE_VARIABLE):
        # The address may carry a password, so it stays in the environment.
        values["online_store"] = {
            "type": "redis",
            "connection_string": f"${{{ONLINE_STORE_VARIABLE}}}",
            "key_ttl_seconds": None if ttl_days is None else ttl_days * DAY_S,
        }
    files.write_text_atomic(folder / "feature_store.yaml", yaml.safe_dump(values, sort_keys=False))
    store = open_store(folder)
    store.apply(_feast_objects())
    _set_wal(folder / "online.db")
    return folder


def open_store(generation: Path) -> "FeatureStore":
    """Return the Feast store of a generation, wherever this process was started."""
    import_feast()
    from feast import FeatureStore, RepoConfig

    # It says, each time, that the flag has no effect on file registries; it has: reads of a materialising view go on.
    logging.getLogger("feast.repo_config").setLevel(logging.ERROR)
    values = yaml.safe_load((generation / "feature_store.yaml").read_text(encoding="utf-8"))
    if values["online_store"]["type"] == "redis":
        values["online_store"]["connection_string"] = redis_connection(os.environ.get(ONLINE_STORE_VARIABLE, ""))
    config = RepoConfig(**values, repo_path=generation)
    return FeatureStore(repo_path=str(generation), config=config)


def go_live(generation: Path) -> None:
    """Make a whole generation the one that serves, and delete all but the newest ones."""
    feast_dir = home.feast_dir()
    link = feast_dir / ".live.tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(Path("generations") / generation.name)
    link.replace(feast_dir / "live")
    older = sorted(
        (folder for folder in (feast_dir / "generations").iterdir() if folder != generation),
        key=lambda folder: folder.stat().st_mtime,
    )
    for folder in older[: -(_KEPT_GENERATIONS - 1)]:
        _delete(folder)


def close_offline_store() -> None:
    """Close the DuckDB connection that Feast's joins opened, which else complains at the interpreter's end."""
    import ibis  # type: ignore[import-untyped]

    if ibis.options.default_backend is not None:
        ibis.options.default_backend.disconnect()
        ibis.options.default_backend = None


def redis_connection(url: str) -> str:
    """Return Feast's connection string for a `redis://[user:password@]host[:port][/db]` or `rediss://` address.

    Raises:
        UsageError: it is no such address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise UsageError(
            f"{ONLINE_STORE_VARIABLE} is {parts.scheme or 'empty'}://..., expected redis://host:port/db",
            next_step=f"set {ONLINE_STORE_VARIABLE}, or unset it to use SQLite and run `sidrec run` again",
        )
    options: dict[str, Any] = {
        "db": parts.path.strip("/") or 0,
        "socket_timeout": _REDIS_TIMEOUT_S,
        "socket_connect_timeout": _REDIS_TIMEOUT_S,
    }
    if parts.username:
        options["username"] = json.dumps(unquote(parts.username))
    if parts.password:
        options["password"] = json.dumps(unquote(parts.password))
    if "," in f"{parts.username}{unquote(parts.password or '')}":
        raise UsageError(f"{ONLINE_STORE_VARIABLE} has a comma in its user or password, which Feast cannot pass on")
    if parts.scheme == "rediss":
        options["ssl"] = "true"
    return ",".join([f"{parts.hostname}:{parts.port or 6379}", *(f"{name}={value}" for name, value in options.items())])


def _feast_objects() -> list[Any]:
    """Return what features.py declares, for the state folder of this moment."""
    from feast import Entity, FeatureService, FeatureView
    from feast.data_source import DataSource

    declared = runpy.run_path(str(_REPOSITORY / "features.py"))
    kinds = (Entity, FeatureService, FeatureView, DataSource)
    return [value for value in declared.values() if isinstance(value, kinds)]


def _set_wal(database: Path) -> None:
    """Let readers go on while one process writes; SQLite keeps the setting in the file."""
    import sqlite3

    if database.exists():
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")


def _delete(generation: Path) -> None:
    """Remove a generation that no longer serves, its keys in Redis included."""
    settings = generation / "feature_store.yaml"
    if settings.exists() and yaml.safe_load(settings.read_text(encoding="utf-8"))["online_store"]["type"] == "redis":
        open_store(generation).teardown()  # type: ignore[no-untyped-call]
    shutil.rmtree(generation)
