"""A fitted language model over a catalogue that was appended to: every weight as it was, new items have known words.

Axes: `level` codes of a semantic ID.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sidrec import files
from sidrec.data.catalog import Catalog
from sidrec.errors import BundleError
from sidrec.systems.appended import new_items
from sidrec.systems.base import MODEL
from sidrec.systems.sidreasoner.backbone import LANGUAGE_MODEL, check_fingerprint, write_header
from sidrec.systems.sidreasoner.vocab import SidVocab


def carry_model(source: Path, before: Catalog, catalog: Catalog, folder: Path) -> dict[str, Any]:
    """Write `folder/model`, whose fingerprint is the new catalogue's, and return how many items are new.

    Raises:
        BundleError: a published item is elsewhere in the new catalogue, a code has no token, or the model is not of
            `before`.
    """
    added = new_items(before, catalog)
    header: dict[str, Any] = files.read_json(source / MODEL)
    sizes = header["sizes"]
    _require_tokens(catalog, sizes, source / MODEL)
    check_fingerprint(source / LANGUAGE_MODEL, SidVocab(tuple(before.item_ids), before.codes, tuple(sizes)))
    vocab = SidVocab(tuple(catalog.item_ids), catalog.codes, tuple(sizes))
    target = folder / "model"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / LANGUAGE_MODEL, target / LANGUAGE_MODEL)
    write_header(target / LANGUAGE_MODEL, vocab)
    files.write_json_atomic(target / MODEL, {**header, "fingerprint": vocab.fingerprint})
    return {"rows": len(catalog), "new_items": added}


def _require_tokens(catalog: Catalog, sizes: Sequence[int], evidence: Path) -> None:
    asked = (catalog.codes.max(axis=0) + 1).tolist()
    if len(asked) == len(sizes) and all(most <= size for most, size in zip(asked, sizes, strict=True)):
        return
    raise BundleError(
        f"the language model has words for {list(sizes)} codes a level, the catalogue asks for {asked}: a new item has "
        "a code without a token",
        evidence=evidence,
        next_step="sidrec run, which trains from scratch",
    )
