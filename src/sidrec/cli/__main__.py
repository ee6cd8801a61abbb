"""`python -m sidrec.cli` is `sidrec`."""

from sidrec.cli.main import entry

if __name__ == "__main__":
    entry()
