"""What a language model needs beyond the library's own packages. Imports none of it."""

from importlib.util import find_spec

from sidrec.errors import UsageError

PACKAGES = ("transformers", "tokenizers", "jinja2", "peft")


def require_packages() -> None:
    """Refuse to go on without the packages of a language model.

    Raises:
        UsageError: some are not installed; they are named.
    """
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if absent:
        raise UsageError(
            f"kind sidreasoner needs {', '.join(absent)}, not installed here", next_step="pip install 'sidrec[llm]'"
        )
