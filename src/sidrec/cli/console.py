"""What commands print: JSON for scripts, tables for people."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def emit(value: Any, as_json: bool, render: Callable[[], None]) -> None:
    """Print `value` as JSON, or call `render` to print it for a person."""
    if as_json:
        print(json.dumps(value, indent=2, default=str))
    else:
        render()
