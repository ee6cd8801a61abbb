"""Pieces on disk hold what the file holds, or refuse it as the whole file is refused."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from sidrec.data import batch
from sidrec.data.adapters import open_adapter
from sidrec.data.adapters.source import PLACE, SourceRefusedError
from sidrec.data.batch import as_shown, open_batch
from sidrec.data.config import DataConfig
from sidrec.data.engine import DuckDB
from sidrec.data.tables import Kept, Polars, values
from tests import data_world as world


def config(folder: Path, name: str) -> DataConfig:
    """The shop's data, its events in a file of this name."""
    data = world.shop_data(folder, world.shop_events().head(1_000))
    content = (folder / "events.csv").read_bytes()
    if name.endswith(".parquet"):
        pl.read_csv(folder / "events.csv").write_parquet(folder / name)
    else:
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return DataConfig.model_validate({**data, "events": folder / name})


@pytest.mark.parametrize("name", ["raw.csv", "raw.csv.gz", "raw.parquet"])
def test_pieces_together_are_the_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows, parsed and as text, in the file's order, from four pieces, the last of them short."""
    monkeypatch.setattr(batch, "PIECE_ROWS", 300)
    adapter = open_adapter(config(tmp_path, name), world.START)
    whole = open_batch(adapter, Polars(), tmp_path)
    pieces = open_batch(adapter, DuckDB(""), tmp_path)
    parsed = [values(one.parse().rows.sort(PLACE)) for one in (whole, pieces)]

    assert isinstance(whole.events, pl.DataFrame)
    assert isinstance(pieces.events, Path)
    assert pl.read_parquet(pieces.events).equals(as_shown(whole.events))
    assert [pl.read_parquet(part).height for part in sorted(pieces.events.iterdir())] == [300, 300, 300, 100]
    assert parsed[0] == parsed[1]
    assert len(parsed[0]) == 1_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("gone.parquet", None),
        ("zero.csv", b""),
        ("blank.csv", b"\n\n"),
        ("head.csv", b"customer,sku\n"),
        ("text.parquet", b"this is no parquet file, only words"),
        ("ragged.csv", b"customer,sku\n1,2\n1,2,3\n"),
        ("latin.csv", b"customer,sku\n1,\xe9\n"),
        ("sheet.xlsx", b"PK"),
    ],
)
def test_a_broken_file_is_refused_alike(name: str, content: bytes | None, tmp_path: Path) -> None:
    """By the same rule and for the same reason."""
    adapter = open_adapter(config(tmp_path, "raw.csv").model_copy(update={"events": tmp_path / name}), world.START)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    said = []
    for engine in (Polars(), DuckDB("")):
        with pytest.raises(SourceRefusedError) as caught:
            open_batch(adapter, engine, tmp_path)
        said.append((caught.value.rule, caught.value.message.partition(": ")[2][: len(str(tmp_path / name)) + 25]))

    assert said[0] == said[1]


def test_equal_rows_are_equal_files(tmp_path: Path) -> None:
    """In how many pieces a frame lies in memory is not seen in its file, and an older file or folder gives way."""
    frame = pl.DataFrame({"n": range(400_000)})
    pieces = pl.concat([frame.head(150_000), frame.slice(150_000)], rechunk=False)
    (tmp_path / "pieces").mkdir()
    (tmp_path / "whole").write_bytes(b"older")
    for name, rows in (("whole", frame), ("pieces", pieces)):
        Kept(Polars().lift(rows, tmp_path), rows).move(tmp_path / name)
    before = (tmp_path / "whole").read_bytes()
    Kept(DuckDB("").lift(frame, tmp_path / "lifted"), tmp_path / "lifted").move(tmp_path / "whole")

    assert before == (tmp_path / "pieces").read_bytes()
    assert pl.read_parquet(tmp_path / "whole").equals(frame)
