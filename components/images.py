"""Image tags of the pipeline steps, derived from the library's version."""

import os

from sidrec import __version__

# kfp's local runner warns about names without "python" in them.
PYTHON = os.environ.get("SIDREC_IMAGE", f"sidrec-python:{__version__}")
