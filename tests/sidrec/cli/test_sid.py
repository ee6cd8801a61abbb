"""`sidrec sid` appends, refreshes, compares and explains codebooks in folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sidrec.cli.main import main
from sidrec.codebook.artefact import Artefact
from tests.codebook_world import SIZE, items_of, sealed_codebook, titled_items


@pytest.fixture(scope="module")
def items() -> pl.DataFrame:
    return titled_items()


@pytest.fixture(scope="module")
def codebook(items: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed_codebook(items, tmp_path_factory.mktemp("first") / "codebook")


def call(capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    status = main(["sid", *arguments, "--json"])
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert status == expect, value
    return value


def with_more(items: pl.DataFrame, path: Path) -> Path:
    """Write the items without their first, and with three new ones."""
    more = items_of(3, 900).with_columns(title=pl.Series(["RED MUG CUSHION", "BLUE TEA BAUBLE", "GOLD PAPER CANDLE"]))
    pl.concat([items.tail(-1), more]).write_parquet(path)
    return path


def test_append_then_diff_shows_no_mover(
    codebook: Path, items: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three items come, one is buried, nothing published moves; the next codebook opens whole."""
    table = with_more(items, tmp_path / "items.parquet")
    made = call(
        capsys, "append", str(codebook), "--items", str(table), "--out", str(tmp_path / "next"), "--day", "2010-09-01"
    )
    difference = call(capsys, "diff", str(codebook), str(tmp_path / "next"), "--html", str(tmp_path / "diff.html"))

    assert (made["verb"], made["items"], made["churn"]["moved"]) == ("append", 75, 0)
    assert difference["moved"]["items"] == 0
    assert difference["same_lineage"]
    assert difference["items"] == {"common": 72, "added": 3, "absent": 0, "removed": 1, "restored": 0}
    assert str(Artefact.open(tmp_path / "next").catalog.removed_on[0]) == "2010-09-01"
    assert "plotly" in (tmp_path / "diff.html").read_text().lower()


def test_items_may_come_as_csv(
    codebook: Path, items: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same catalogue from a CSV file, whose ids stay text."""
    items.select("item_id", "title").write_csv(tmp_path / "items.csv")
    made = call(
        capsys, "append", str(codebook), "--items", str(tmp_path / "items.csv"), "--out", str(tmp_path / "next")
    )

    assert made["items"] == 72
    assert made["reason"].endswith("0 new items, 0 removed, 0 back")


def test_refresh_keeps_its_budget_and_says_so(
    codebook: Path, items: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Generation 2 within 10 % of the traffic, in words and in the gate."""
    table = with_more(items, tmp_path / "items.parquet")
    made = call(
        capsys,
        "refresh",
        str(codebook),
        "--items",
        str(table),
        "--out",
        str(tmp_path / "next"),
        "--churn-budget",
        "0.1",
    )

    assert made["generation"] == 2
    assert made["churn"]["share"] <= 0.1
    assert made["gates"]["churn"] == "pass"
    assert "(budget 10.0%)" in made["said"]


def test_health_shows_the_report(codebook: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures by level as JSON, and a page beside them."""
    value = call(capsys, "health", str(codebook), "--html", str(tmp_path / "health.html"))

    assert [level["codebook_size"] for level in value["levels"]] == [SIZE] * 3
    assert set(value["report"]["views"]) == {"catalogue", "traffic", "served"}
    assert (tmp_path / "health.html").stat().st_size > 1_000_000


def test_explain_names_the_neighbours(codebook: Path, items: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    """Levels from coarse to fine, with ever fewer items and the share explained."""
    value = call(capsys, "explain", items["item_id"][5], "--in", str(codebook))
    counts = [level["items"] for level in value["levels"]]

    assert value["title"] == items["title"][5]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1
    assert value["levels"][0]["explained"] > 0.2


def test_mistakes_are_named(
    codebook: Path, items: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown item, a missing file and an altered codebook: the message says what and where."""
    assert "did you mean" in call(capsys, "explain", "i9000", "--in", str(codebook), expect=2)["message"]
    missing = call(capsys, "append", str(codebook), "--items", "/no/file", "--out", str(tmp_path), expect=2)
    assert missing["message"] == "no items file at /no/file"

    shutil.copytree(codebook, tmp_path / "altered")
    with (tmp_path / "altered" / "codebook.json").open("a") as file:
        file.write(" ")
    altered = call(capsys, "health", str(tmp_path / "altered"), expect=1)
    assert "codebook.json of the codebook was altered" in altered["message"]


def test_the_terminal_shows_each_answer(
    codebook: Path, items: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --json every command prints for a person and leaves with 0."""
    table = str(with_more(items, tmp_path / "items.parquet"))
    for arguments, said in (
        (["health", str(codebook)], "collision rate"),
        (["explain", items["item_id"][5], "--in", str(codebook)], "at level 0"),
        (["append", str(codebook), "--items", table, "--out", str(tmp_path / "a")], "append: the recipe asks for it"),
        (["refresh", str(codebook), "--items", table, "--out", str(tmp_path / "r")], "published items moved"),
        (["diff", str(codebook), str(tmp_path / "r")], "history tokens rewritten"),
    ):
        assert main(["sid", *arguments]) == 0
        assert said in capsys.readouterr().out.replace("\n", " ")
