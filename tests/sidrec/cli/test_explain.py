"""`sidrec explain` tells why a bundle recommends, for stored users or a given history, and refuses the rest."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import save_file

from serving.history import StoredHistory
from sidrec import files, home
from sidrec.bundle import open_bundle, write_bundle
from sidrec.cli.main import main
from sidrec.data.catalog import Catalog
from sidrec.decoding.trie import PrefixTrie
from sidrec.recipe import S2GRRecipe, parse_recipe
from sidrec.recommender import Recommender, Request
from sidrec.systems.s2gr.model import S2GRModel
from sidrec.systems.s2gr.rank import TRAINING_ONLY
from tests.reg4rec_bundle import reg4rec_bundle
from tests.serving.world import make_bundle
from tests.sidreasoner_bundle import sidreasoner_bundle
from tests.sidrec.cli.test_bare_wheel import ROOT, bare

ITEMS, WIDTH, AS_OF = 60, 20, 1_291_161_600
HISTORY = "i03,i17,unheard-of,i20"


def s2gr_bundle(folder: Path, *, thinking: str = "stepwise", clusters: bool = True) -> Path:
    """Write a bundle of random weights that answers and can be explained; its titles look like rich's markup."""
    values = yaml.safe_load((ROOT / "pipelines/recipes/s2gr_debug.yaml").read_text())
    values["model"] = {**values["model"], "thinking": thinking}
    text = yaml.safe_dump(values)
    recipe = parse_recipe(text)
    assert isinstance(recipe, S2GRRecipe)
    codes = np.stack([np.arange(ITEMS) % 4, np.arange(ITEMS) // 4 % 5, np.arange(ITEMS) // 20], axis=1)
    items = pl.DataFrame(
        {
            "item_id": [f"i{row:02d}" for row in range(ITEMS)],
            "title": [f"[red]ITEM {row}[/]" for row in range(ITEMS)],
            "popularity": np.arange(ITEMS),
        }
    )
    catalog = Catalog.build(items, codes.astype(np.int32))
    trie = PrefixTrie.from_codes(catalog.codes)
    torch.manual_seed(0)
    model = S2GRModel(recipe.model, codebook_sizes=[8] * 3, code_dim=4, num_nodes=trie.num_nodes)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith(TRAINING_ONLY)}
    weights["node_bias"] = torch.randn(trie.num_nodes)
    if clusters:
        weights |= {"cluster_of": torch.randint(0, 3, (3, 8)), "cluster_centres": torch.randn(3, 3, 4)}
    made = folder / "made"
    made.mkdir(parents=True)
    catalog.write(made / "catalogue.parquet")
    save_file(weights, made / "weights.safetensors")
    repeat = {"copy_weights": [1.0, 0.5, -0.2, 0.1, 0.3, 0.2], "gate_weights": [0.3, 0.1, 0.1, 0.2, 0.0, 0.0]}
    header = {
        "kind": "s2gr",
        "format": 1,
        "model": recipe.model.model_dump(mode="json"),
        "codebook_sizes": [8] * 3,
        "code_dim": 4,
        "repeat": {**repeat, "half_life_days": 120.0},
    }
    files.write_json_atomic(made / "model.json", header)
    files.write_json_atomic(
        made / "decode.json", {"kind": "s2gr", "beam_width": WIDTH, "as_of_time": AS_OF, "clock": "event"}
    )
    (made / "recipe.yaml").write_text(text)
    return write_bundle(folder / "bundle", {path.name: path for path in made.iterdir()}, {}).folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return s2gr_bundle(tmp_path_factory.mktemp("s2gr"))


def call(capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    status = main(["explain", *arguments, "--json"])
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert status == expect, value
    return value


def shown(value: dict[str, Any]) -> list[tuple[str, float]]:
    return [(item["item_id"], item["score"]) for item in value["users"][0]["items"]]


def served(bundle: Path, *, k: int, beam_width: int | None = None) -> list[tuple[str, float]]:
    request = Request(tuple(HISTORY.split(",")), (), k)
    answer = Recommender.open(bundle).recommend([request], beam_width=beam_width)[0]
    return list(zip(answer.item_ids, answer.scores.tolist(), strict=True))


def test_it_explains_the_answer_of_the_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Items and scores are those that the recommender gives, also at another beam width."""
    value = call(capsys, "--history", HISTORY, "--bundle", str(bundle), "-k", "5")
    narrow = call(capsys, "--history", HISTORY, "--bundle", str(bundle), "-k", "5", "--beam", "2")

    assert (value["bundle_id"], value["beam_width"]) == (open_bundle(bundle).bundle_id, WIDTH)
    assert shown(value) == served(bundle, k=5)
    assert narrow["beam_width"] == 2
    assert shown(narrow) == served(bundle, k=5, beam_width=2) != shown(value)
    assert value["users"][0]["history"] == ["[red]ITEM 20[/]", "[red]ITEM 17[/]", "[red]ITEM 3[/]"]
    assert {item["path"] for item in value["users"][0]["items"]} == {"generator", "repeat"}
    assert len(value["users"][0]["items"][0]["steps"][0]["nearest"]) == 3


def test_the_wheel_alone_explains_a_bundle_in_a_folder(bundle: Path, own_state: Path) -> None:
    """Neither the application nor a platform is needed for a history on the command line."""
    code, value = bare(own_state, "explain", "--history", HISTORY, "--bundle", str(bundle))

    assert code == 0
    assert shown(value) == served(bundle, k=3)


def test_the_champion_and_stored_users_need_the_application(bundle: Path, own_state: Path) -> None:
    """The message says so, in one line."""
    for arguments in (("17850",), ("17850", "--bundle", str(bundle))):
        code, error = bare(own_state, "explain", *arguments)

        assert code == 2
        assert "application" in str(error["message"])


def test_the_terminal_shows_titles_as_they_are(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first thought once, then every item with its codes; a title in brackets is no colour."""
    assert main(["explain", "--history", HISTORY, "--bundle", str(bundle)]) == 0
    said = capsys.readouterr().out

    assert said.count("first thought") == 1
    assert said.count("% of what can follow") == 3 * 3
    assert said.count("thinks") == 3 * 2
    assert said.count("[red]ITEM 20[/]") >= 1
    for rank, (item, _) in enumerate(served(bundle, k=3), start=1):
        assert f"{rank}. [red]ITEM {int(item[1:])}[/] ({item})" in said


def test_what_is_taken_down_is_not_explained(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This installation's takedown list counts here as it does in serving: neither recommended nor named."""
    first = served(bundle, k=1)[0][0]
    home.takedown_path().parent.mkdir(parents=True)
    home.takedown_path().write_text(f"{first}\n")
    items = call(capsys, "--history", HISTORY, "--bundle", str(bundle))["users"][0]["items"]

    assert first not in {item["item_id"] for item in items}
    assert f'"[red]ITEM {int(first[1:])}[/]"' not in json.dumps(items)


class FakeReader:
    """A feature store with one user who may be served, and one who came too long ago."""

    last_error = None

    def wait_open(self, timeout_s: float) -> bool:
        return True

    def read(self, users: Sequence[str], *, now: int, deadline_ms: float) -> list[StoredHistory]:
        assert now == AS_OF
        times = (AS_OF - 900_000, AS_OF - 800_000)
        known = {
            "ann": StoredHistory(("i03", "i17"), times, 800_000, "fresh"),
            "bob": StoredHistory(("i30",), times[:1], 900_000, "fresh"),
            "old": StoredHistory((), (), 500 * 86_400, "stale"),
        }
        return [known.get(user, StoredHistory((), (), None, "missing")) for user in users]

    def close(self) -> None:
        pass


def test_several_stored_users_in_one_page(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each user once, in the order asked, by the history of the store, in one page that holds its own code."""
    monkeypatch.setattr("serving.history.HistoryReader", FakeReader)
    path = tmp_path / "page.html"
    value = call(capsys, "bob", "ann", "bob", "--bundle", str(bundle), "--html", str(path))
    page = path.read_text(encoding="utf-8")

    assert [user["user"] for user in value["users"]] == ["bob", "ann"]
    assert [user["history"] for user in value["users"]] == [["[red]ITEM 30[/]"], ["[red]ITEM 17[/]", "[red]ITEM 3[/]"]]
    assert page.index("<h2>bob</h2>") < page.index("<h2>ann</h2>")
    assert page.count('class="plotly-graph-div"') == 2 * 4
    assert "<script src=" not in page


def test_users_who_cannot_be_explained_are_named(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown user and one whose history is too old."""
    monkeypatch.setattr("serving.history.HistoryReader", FakeReader)

    unknown = call(capsys, "ann", "eve", "--bundle", str(bundle), expect=2)
    assert "user 'eve' is not in the feature store" in unknown["message"]
    assert "500 days old" in call(capsys, "old", "--bundle", str(bundle), expect=2)["message"]


def test_a_missing_feature_store_is_named(
    bundle: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The check failed and nothing is wrong with the call: exit 1, with the folder and what to do."""
    caplog.set_level(logging.CRITICAL, logger="serving.history")
    error = call(capsys, "ann", "--bundle", str(bundle), expect=1)

    assert error["error"] == "ServingError"
    assert "no feature store at" in error["message"]
    assert "--history" in error["next"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "seen neither"),
        (("ann", "--history", "i03"), "seen both"),
        (("--history", "i03"), "no champion"),
        (("--history", "x,y", "--bundle", "BUNDLE"), "none of the 2 items"),
    ],
)
def test_wrong_calls_are_named(
    bundle: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    """No user, users and a history, no champion yet, a history of strangers: exit 2 and the next step."""
    error = call(capsys, *(one.replace("BUNDLE", str(bundle)) for one in arguments), expect=2)

    assert said in error["message"]
    assert error["next"]


def test_bundles_without_thoughts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Popularity, no thinking tokens, and weights from before clusters were kept: exit 2, each by its reason."""
    made = {
        "kind popularity": make_bundle(tmp_path / "popularity").folder,
        "thinking: none": s2gr_bundle(tmp_path / "none", thinking="none"),
        "thinking: pause": s2gr_bundle(tmp_path / "pause", thinking="pause"),
        "no clusters": s2gr_bundle(tmp_path / "old", clusters=False),
    }
    for said, folder in made.items():
        error = call(capsys, "--history", "i03", "--bundle", str(folder), expect=2)

        assert error["error"] == "UsageError"
        assert said in error["message"]
        assert error["next"]


def test_a_bundle_of_paths_is_explained_as_it_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second system: items and scores of the recommender, a step a slot, the shop's category by name and titles."""
    folder = reg4rec_bundle(tmp_path).folder
    page = tmp_path / "page.html"
    value = call(capsys, "--history", HISTORY, "--bundle", str(folder), "-k", "4", "--html", str(page))
    user = value["users"][0]
    steps = user["items"][0]["steps"]

    assert shown(value) == served(folder, k=4)
    assert sorted(step["slot"] for step in steps) == [0, 1, 2, 3]
    assert steps[0]["named"]["name"].startswith("section ")
    assert steps[0]["named"]["titles"][0].startswith("[red]ITEM")
    assert 0 < user["pruning_survival"] < 1
    assert page.read_text(encoding="utf-8").count('class="plotly-graph-div"') == 4


def test_the_terminal_shows_a_path_step_by_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = reg4rec_bundle(tmp_path).folder
    assert main(["explain", "--history", HISTORY, "--bundle", str(folder), "-k", "2"]) == 0
    said = capsys.readouterr().out

    assert said.count(" names section ") == 2 * 4
    assert said.count("of the 60 items left") == 2
    assert said.count("were pruned") == 1
    assert "this history: [red]ITEM 20[/]" in said


def test_a_rationale_is_explained_as_it_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The third system: items and scores of the recommender, what it wrote before, and each item without that."""
    folder = sidreasoner_bundle(tmp_path).folder
    page = tmp_path / "page.html"
    value = call(capsys, "--history", HISTORY, "--bundle", str(folder), "-k", "4", "--html", str(page))
    user = value["users"][0]
    direct = sidreasoner_bundle(tmp_path, mode="direct", name="direct").folder

    assert shown(value) == served(folder, k=4)
    assert user["rationale"]
    assert user["history"][0] == "[red]ITEM 20[/]"
    alone = dict(served(direct, k=60))
    for item in user["items"]:
        assert item["direct_log_prob"] == pytest.approx(alone[item["item_id"]], abs=1e-4)
    assert "without the rationale" in page.read_text(encoding="utf-8")
