"""The store on disk is what Feast needs to serve while it is written, wherever it lies."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from feast.repo_operations import get_repo_files

from feature_repo import store
from sidrec import home
from sidrec.errors import ServingError, UsageError
from sidrec.files import read_json, write_json_atomic
from tests import feature_world as world


def test_feast_finds_its_objects_in_one_file(project_root: Path) -> None:
    """Whoever runs Feast's own command line imports features.py and nothing else of ours."""
    assert [path.name for path in get_repo_files((project_root / "feature_repo").resolve())] == ["features.py"]


def test_sources_lie_where_the_step_writes_them() -> None:
    """features.py imports nothing of ours, so its path is written twice; both say the same."""
    generation = store.new_generation("a" * 64)
    views = store.open_store(generation).list_feature_views()

    assert {Path(view.batch_source.path) for view in views} == {
        store.sources_dir() / f"{view.name}.parquet" for view in views
    }
    assert len(views) == 4


def test_a_generation_has_the_settings_that_serving_needs() -> None:
    """Write-ahead log, reads during materialisation, key version 3, DuckDB offline."""
    generation = store.new_generation("a" * 64)
    config = store.open_store(generation).config

    assert config.registry.serve_features_while_materializing is True
    assert config.entity_key_serialization_version == 3
    assert config.offline_store.type == "duckdb"
    with closing(sqlite3.connect(generation / "online.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_service_reads_the_history_alone() -> None:
    """One request reads one small row: SQLite would fetch every feature of a view."""
    service = store.open_store(store.new_generation("a" * 64)).get_feature_service("recommend_v1")

    assert [(view.name, [field.name for field in view.features]) for view in service.feature_view_projections] == [
        ("user_history", ["item_ids", "times"])
    ]


def test_only_the_live_generation_and_the_one_before_are_kept() -> None:
    """Old stores do not pile up, and a reader that still has the last one open loses nothing."""
    generations = []
    for number in range(4):
        generations.append(store.new_generation(f"{number}" * 64))
        store.go_live(generations[-1])

    assert store.live_folder(home.feast_dir()) == generations[-1]
    assert sorted(generations[-1].parent.iterdir()) == sorted(generations[-2:])


def test_no_live_store_is_said_so() -> None:
    """The error names the folder and the command that makes a store."""
    with pytest.raises(ServingError, match="no feature store at") as caught:
        store.live_folder(home.feast_dir())

    assert caught.value.next_step == "sidrec run"


def test_state_of_another_version_is_refused(tmp_path: Path) -> None:
    """A store that a newer sidrec made is not half understood."""
    world.make_store(tmp_path)
    state = store.live_folder(home.feast_dir()) / "state.json"
    write_json_atomic(state, read_json(state) | {"schema_version": 99})

    with pytest.raises(ServingError, match="schema version 99, this code reads 1"):
        store.read_state(state.parent)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", "cache:6379,db=0,socket_timeout=2,socket_connect_timeout=2"),
        ("redis://cache:7000/3", "cache:7000,db=3,socket_timeout=2,socket_connect_timeout=2"),
        (
            "rediss://me:p%40ss@cache:7000/1",
            'cache:7000,db=1,socket_timeout=2,socket_connect_timeout=2,username="me",password="p@ss",ssl=true',
        ),
    ],
)
def test_redis_address_becomes_feasts_own_form(url: str, expected: str) -> None:
    """Host, port, database, user, password and TLS arrive; a hung server fails within seconds."""
    assert store.redis_connection(url) == expected


@pytest.mark.parametrize("url", ["", "sqlite:///x", "cache:6379", "redis://", "redis://u:a%2Cb@cache"])
def test_what_is_no_redis_address_is_refused(url: str) -> None:
    """A mistyped address stops the call instead of meaning localhost."""
    with pytest.raises(UsageError, match="SIDREC_ONLINE_STORE"):
        store.redis_connection(url)


def test_the_redis_password_is_not_written_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A generation's settings name the variable, never its value."""
    monkeypatch.setenv("SIDREC_ONLINE_STORE", "redis://:hunter2@127.0.0.1:1/0")
    generation = store.new_generation("a" * 64)

    written = b"".join(path.read_bytes() for path in generation.rglob("*") if path.is_file())
    assert b"hunter2" not in written
    assert 'password="hunter2"' in store.open_store(generation).config.online_store.connection_string
    assert "hunter2" in os.environ["SIDREC_ONLINE_STORE"]
