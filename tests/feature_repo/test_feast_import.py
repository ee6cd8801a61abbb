"""Feast comes without its run-time type checks, and nobody else loses theirs."""

import subprocess
import sys

SCRIPT = """
import typeguard
before = typeguard.typechecked
from feature_repo.feast_import import import_feast
import_feast()
import feast
checked = [name for name in ("FeatureView", "OnDemandFeatureView", "Entity", "Field")
           if any("check_argument_types" in repr(code.co_consts) + repr(code.co_names)
                  for code in [getattr(feast, name).__init__.__code__])]
print(checked, typeguard.typechecked is before)
"""


def test_feast_is_imported_unchecked_and_typeguard_is_left_as_it_was() -> None:
    """Recompiling every method is what makes Feast's import slow."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[] True"


def test_feast_does_check_itself_when_left_alone() -> None:
    """The test above can fail: an ordinary import is instrumented."""
    script = SCRIPT.replace("import_feast()\n", "", 1)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() != "[] True"
