"""What docs/your-data.md shows is what the code does."""

import re
from pathlib import Path

import polars as pl
import pytest

from components.build_sequences import run as build_sequences
from components.validate_events import run as validate_events
from components.validate_events import suite
from sidrec.data.adapters import amazon, online_retail, table
from sidrec.data.config import EVENT_NAMES, ITEM_NAMES, ValidationConfig
from sidrec.errors import ValidationFailedError
from sidrec.files import read_json
from sidrec.recipe import parse_recipe
from tests import data_world as world

PAGE = (Path(__file__).parents[2] / "docs" / "your-data.md").read_text()


def block(name: str) -> str:
    """The page's code block that is called `name`."""
    found = re.search(rf"```\w+ file={re.escape(name)}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, name
    return found.group(1)


def write_shop(folder: Path) -> None:
    """The page's files with enough rows below their headers: the page's own rows come first."""
    events = world.shop_events().with_columns(paid=pl.col("pieces") * 2.5)
    (folder / "events.csv").write_text(block("events.csv") + events.write_csv(include_header=False))
    items = world.shop_items().with_columns(section=pl.lit("Garden; Lights"))
    shown = pl.read_csv(block("items.csv").encode())
    rest = items.filter(~pl.col("sku").is_in(shown["sku"].implode()))
    (folder / "items.csv").write_text(block("items.csv") + rest.write_csv(include_header=False))


def test_the_example_runs_from_csv_to_baskets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's recipe over the page's files passes validation and makes baskets and a catalogue."""
    write_shop(tmp_path)
    monkeypatch.chdir(tmp_path)
    recipe = parse_recipe(block("my.yaml"))
    step = tmp_path / "step"
    step.mkdir()

    validate_events.run(recipe, {}, step)
    summary = build_sequences.run(recipe, {name: step / name for name in ("events", "sales", "items_raw")}, step)

    items = pl.read_parquet(step / "items")
    lantern = items.row(by_predicate=pl.col("item_id") == "s004", named=True)
    assert (lantern["title"], lantern["categories"]) == ("Red garden lantern with candle", "Garden; Lights")
    assert summary["gate_baskets"] > 100
    assert read_json(step / "accounting")["anonymous"] == 1


def test_the_example_shows_the_default_limits() -> None:
    """The page's validation section is the defaults, all of them."""
    recipe = parse_recipe(block("my.yaml"))

    assert recipe.validation == ValidationConfig()
    for name in ValidationConfig.model_fields:
        assert f"  {name}:" in block("my.yaml")


def test_every_column_of_ours_is_explained() -> None:
    """The page names each column that a recipe can map."""
    for name in (*EVENT_NAMES, *ITEM_NAMES):
        assert f"`{name}`" in PAGE


def test_every_row_rule_is_listed() -> None:
    """The page lists the rules of own data in their order, and names the others."""
    listed = re.findall(r"^\| `(T\d)` \|", PAGE, re.MULTILINE)

    assert listed == [rule.rule for rule in table.RULES]
    assert all(f"`{rule.rule}`" in PAGE for rule in amazon.RULES)
    assert f"`{online_retail.RULES[0].rule}`..`{online_retail.RULES[-1].rule}`" in PAGE


def test_every_batch_rule_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule that can stop a run has a line in the page's table, and no other has one."""
    start = PAGE.index("**Batch.**")
    section = PAGE[start : PAGE.index("A rule that cannot be checked", start)]
    listed = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    rules = {one.meta["rule"] for one in suite.kept_expectations()}
    seen: set[str] = set()
    monkeypatch.setattr(
        validate_events, "_stop_if_failed", lambda findings, folder: seen.update(one.rule for one in findings)
    )
    validate_events.run(world.shop_recipe(world.shop_data(tmp_path), validation={"max_age_days": 900}), {}, tmp_path)

    assert listed == rules | seen | {"readable", "times_known"}


@pytest.mark.parametrize("line", re.findall(r"^rule .*$", PAGE, re.MULTILINE))
def test_shown_refusals_are_the_real_ones(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line under "what a refusal looks like" is printed by the fault that it describes."""
    write_shop(tmp_path)
    monkeypatch.chdir(tmp_path)
    text, events = block("my.yaml"), (tmp_path / "events.csv").read_text()
    if "is missing" in line:
        events = events.replace("bought_at", "when", 1)
    elif "empty" in line:
        events = ""
    elif "known_items" in line:
        text = text.replace("user_id: customer", "user_id: sku").replace(
            "item_id: sku\n    timestamp", "item_id: customer\n    timestamp"
        )
    else:
        text = text.replace("user_id: customer", "user_id: bought_at").replace(
            "timestamp: bought_at", "timestamp: customer"
        )
    (tmp_path / "events.csv").write_text(events)

    with pytest.raises(ValidationFailedError) as caught:
        validate_events.run(parse_recipe(text), {}, tmp_path)

    assert re.sub(r" \(and \d+ more\)$", "", caught.value.message) == line
