"""Settings that people write: one YAML file, one frozen pydantic model, every fault named."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sidrec.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)


def read_settings(
    path: Path,
    kind: type[Model],
    what: str,
    *,
    next_step: str | None = None,
    secret: bool = False,
    refused: type[UsageError] = UsageError,
) -> Model:
    """Return what a YAML (or JSON) file says; an empty one says the defaults.

    Args:
        what: the file's role in a few words, for messages.
        next_step: what to do about a file that is absent or wrong.
        secret: say where a fault is and never what stands there.
        refused: the error that is raised.

    Raises:
        UsageError: no such file, no YAML, or an unknown key or a value out of range; every one is named.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return kind.model_validate({} if values is None else values)
    except OSError as error:
        raise refused(f"no {what} in {path}: {error.strerror}", evidence=path, next_step=next_step) from error
    except yaml.YAMLError as error:
        said = "" if secret else f": {error}"
        raise refused(f"{path} is not YAML{said}", evidence=path, next_step=next_step) from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or what}: {fault['type' if secret else 'msg']}"
            for fault in error.errors()
        )
        raise refused(f"{path} is no {what}: {faults}", evidence=path, next_step=next_step) from error
