"""Tabulate a study."""

from pathlib import Path
from typing import Any

from components.study_cell.run import study_of
from sidrec import files
from sidrec.study.run import tabulate
from sidrec.study.summary import markdown


def run(study: str, recipe: str, out: str, table: str) -> dict[str, Any]:
    """Write the table as Markdown to `table`, and return it; `table.json` and `table.md` lie in `out` too."""
    folder = Path(out)
    result = tabulate(study_of(study, recipe, folder), folder)
    files.write_text_atomic(Path(table), markdown(result))
    return result
