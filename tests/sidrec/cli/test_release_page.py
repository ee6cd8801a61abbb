"""`bundle page` gathers what lies about one bundle and links the reports beside it."""

import json
import re
from pathlib import Path

import pytest
import typer

from monitoring import findings
from sidrec import home
from sidrec.bundle import Bundle
from sidrec.cli import bundles, release_page
from sidrec.errors import UsageError
from tests.monitoring.alert_world import finding, verdict
from tests.page_world import promoted

UNSEEN = finding("unseen_share", "alarm", area="data", arm="all", effect=0.11)


def call(*arguments: str) -> None:
    """Run a command as `sidrec` does."""
    app = typer.Typer()
    for module in (bundles, release_page):
        module.mount(app)
    app(args=["bundle", "page", *arguments], standalone_mode=False)


@pytest.fixture
def champion(tmp_path: Path) -> Bundle:
    """A registered and promoted bundle with a codebook, and a drift report of a week that it served."""
    bundle = promoted(tmp_path)
    served = verdict(UNSEEN).model_copy(update={"bundle_ids": {"champion": bundle.bundle_id}})
    findings.write(served, home.monitoring_dir() / "reports" / "2010-09-20-fit")
    findings.write(verdict(UNSEEN), home.monitoring_dir() / "reports" / "2010-09-27-fit")
    return bundle


def test_the_champions_page_has_its_weeks_and_links_that_lead_somewhere(
    champion: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an argument it is the champion's; another bundle's week is not on it, the codebook's page beside it."""
    call("--json")
    said = json.loads(capsys.readouterr().out)
    page = Path(said["html"])
    text = page.read_text().split("</head>", 1)[1]
    links = re.findall(r"<a href='(.*?)'>", text)

    assert said["bundle_id"] == champion.bundle_id
    assert "2010-09-20..2010-09-26, against fit" in text
    assert links == [f"{champion.bundle_id}-codebook.html", "../reports/2010-09-20-fit/report.html"]
    assert (page.parent / links[0]).is_file()
    assert (page.parent / links[1]).parent.resolve() == home.monitoring_dir() / "reports" / "2010-09-20-fit"
    assert "ann" in text


def test_a_readout_is_shown_and_linked(champion: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `ab readout --json` printed becomes the page's last section; a simulation says so."""
    decision = {"verdict": "keep running", "sentence": "Keep running until 9,000 users."}
    readout = {"experiment": "e", "days": 3.0, "decision": decision, "primary": None}
    (tmp_path / "r.json").write_text(
        json.dumps({"readout": readout, "simulation": True, "html": str(tmp_path / "r.html")})
    )
    call("--readout", str(tmp_path / "r.json"), "--html", str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()

    assert "Simulation: e, 3 days" in text
    assert "<a href='r.html'>The whole read-out</a>" in text


def test_what_is_no_readout_is_refused(champion: Bundle, tmp_path: Path) -> None:
    """The error says what makes one."""
    (tmp_path / "r.json").write_text("{}")

    with pytest.raises(UsageError, match="is no read-out") as error:
        call("--readout", str(tmp_path / "r.json"))

    assert "sidrec ab readout" in str(error.value.next_step)


def test_without_a_champion_the_error_lists_bundles() -> None:
    """Nothing promoted is nothing to show."""
    with pytest.raises(UsageError, match="no champion"):
        call()
