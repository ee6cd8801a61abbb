"""The training step on several processes: `torchrun -m components.train_model.ranks --input NAME=PATH …`.

Every rank calls the step with the same inputs; rank 0 leaves it finished under SIDREC_HOME, where a pipeline's run
finds it done. The recipe's text comes in SIDREC_RECIPE. A world that was started again goes on from its checkpoint.
"""

import argparse
import os
import sys
import tempfile

from components.train_model.run import SECTIONS, run
from sidrec.errors import SidrecError, UsageError
from sidrec.steps import execute


def main(arguments: list[str] | None = None) -> int:
    """Fit; return 0, or the error's exit status on the rank that met it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", action="append", required=True, metavar="NAME=PATH")
    call = parser.parse_args(arguments)
    inputs = dict(one.split("=", 1) for one in call.input)
    try:
        recipe = os.environ.get("SIDREC_RECIPE", "")
        if not recipe:
            raise UsageError("SIDREC_RECIPE holds no recipe", next_step="sidrec train-job writes it into the job")
        with tempfile.TemporaryDirectory() as links:
            outputs = {name: f"{links}/{name}" for name in ("model", "logs")}
            execute("train_model", run, recipe=recipe, sections=SECTIONS, inputs=inputs, outputs=outputs)
    except SidrecError as error:
        print(f"train_model: {error.message}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
