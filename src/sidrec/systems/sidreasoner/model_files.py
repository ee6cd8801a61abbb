"""What a fitted SIDReasoner is on disk: `model.json`, a training log, and the language model in a folder of its own."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sidrec import files
from sidrec.data.catalog import Catalog
from sidrec.errors import BundleError
from sidrec.systems.base import MODEL
from sidrec.systems.sidreasoner.backbone import LANGUAGE_MODEL, Backbone, adopt_backbone, open_backbone
from sidrec.systems.sidreasoner.config import SIDReasonerModelConfig
from sidrec.systems.sidreasoner.vocab import SidVocab

KIND, FORMAT = "sidreasoner", 1
TRAINING_LOG = "training_log.jsonl"


def open_model(folder: Path, catalog: Catalog) -> tuple[dict[str, Any], Backbone]:
    """Return a model's header and its language model.

    Raises:
        BundleError: the model is of another system or format, or of another catalogue.
    """
    header = _header(folder)
    vocab = SidVocab(tuple(catalog.item_ids), catalog.codes, tuple(header["sizes"]))
    return header, open_backbone(folder / LANGUAGE_MODEL, vocab)


def adopt_weights(folder: Path, vocab: SidVocab) -> Backbone:
    """Return the language model of a fitted model, from now on over the catalogue of `vocab`.

    Raises:
        BundleError: the model is of another system or format, or has words for other numbers of codes.
    """
    _header(folder)
    return adopt_backbone(folder / LANGUAGE_MODEL, vocab)


def _header(folder: Path) -> dict[str, Any]:
    header: dict[str, Any] = files.read_json(folder / MODEL)
    if header.get("kind") != KIND or header.get("format") != FORMAT:
        raise BundleError(
            f"expected a {KIND} model of format {FORMAT}, seen {header.get('kind')} of {header.get('format')}",
            evidence=folder / MODEL,
        )
    return header


def write_model(
    folder: Path,
    backbone: Backbone,
    config: SIDReasonerModelConfig,
    teacher: str,
    log: Sequence[dict[str, Any]],
    *,
    aligned: bool = False,
) -> None:
    """Write a model's files; equal models make equal bytes.

    Args:
        log: one row an epoch, each of the `stage` that it names.
    """
    shutil.rmtree(folder, ignore_errors=True)
    backbone.save(folder / LANGUAGE_MODEL)
    header = {
        "kind": KIND,
        "format": FORMAT,
        "model": json.loads(config.model_dump_json()),
        "sizes": list(backbone.vocab.sizes),
        "fingerprint": backbone.vocab.fingerprint,
        "teacher": teacher,
        "stages": list(dict.fromkeys(row["stage"] for row in log)),
        "aligned": aligned,
    }
    files.write_json_atomic(folder / MODEL, header)
    # Times differ from run to run.
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in log]
    files.write_text_atomic(folder / TRAINING_LOG, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def training_log(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a model's training log."""
    return [json.loads(line) for line in (folder / TRAINING_LOG).read_text(encoding="utf-8").splitlines()]
