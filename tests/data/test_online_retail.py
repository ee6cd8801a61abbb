"""The shipped data are the published ones, byte for byte, and come with their attribution."""

import re
from pathlib import Path

from sidrec.files import sha256_file

FOLDER = Path(__file__).parents[2] / "data" / "online_retail"
SHA256 = "99f72ccaf83ac8799aa25d5ef6fc21c2beb927acd3bef57f97889c1286228e6d"


def test_shipped_file_is_the_one_that_was_reviewed() -> None:
    """The file's digest is fixed: every count in the tests rests on it."""
    assert sha256_file(FOLDER / "transactions.parquet") == SHA256


def test_readme_attributes_the_data_and_states_the_digest() -> None:
    """Author, DOI, licence and the same digest stand beside the file."""
    text = (FOLDER / "README.md").read_text()

    for part in ("Chen, D.", "10.24432/C5CG6D", "CC BY 4.0", SHA256):
        assert re.search(re.escape(part), text), part
