"""Why an item has the semantic ID that it has: level by level, beside whom, and what the codes explain of it.

Axes: `item` rows, `level` codes of a semantic ID, `width` of an item vector.
"""

import difflib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sidrec.data.catalog import PAD, Catalog
from sidrec.errors import UsageError
from sidrec.quantization.quantizer import Quantizer


def explain(
    item_id: str,
    catalog: Catalog,
    *,
    quantizer: Quantizer | None = None,
    vector: NDArray[np.float32] | None = None,
    neighbours: int = 8,
) -> dict[str, Any]:
    """Return an item's semantic ID with the items that share each prefix of it, as JSON data.

    Args:
        quantizer: with `vector`, adds the share of the latent vector's squared length that each further code explains,
            and the codes of plain distance, which differ where a collision was resolved or a life cycle kept an old ID.
        vector: [width], of the item by content.
        neighbours: titles named per prefix.

    Raises:
        UsageError: no such item; items of a like id or title are named.
    """
    row = catalog.index_of.get(item_id)
    if row is None:
        raise UsageError(f"item {item_id!r} is not in the catalogue{_like(item_id, catalog)}")
    sid = [int(code) for code in catalog.codes[row] if code != PAD]
    buried = catalog.removed_on[row]
    explained, plain = _explained(quantizer, vector, sid)
    levels = []
    same = np.ones(len(catalog), dtype=np.bool_)
    for level, code in enumerate(sid):
        same &= catalog.codes[:, level] == code
        levels.append(
            {
                "level": level,
                "code": code,
                "items": int(same.sum()),
                "titles": _titles(catalog, same, row, neighbours),
                "explained": None if explained is None or level >= len(explained) else explained[level],
            }
        )
    return {
        "item_id": item_id,
        "title": catalog.titles[row],
        "semantic_id": sid,
        "popularity": int(catalog.popularity[row]),
        "removed_on": None if buried is None else buried.isoformat(),
        "levels": levels,
        "plain_codes": plain,
        "moved_from_plain": None if plain is None else plain != sid[: len(plain)],
    }


def _explained(
    quantizer: Quantizer | None, vector: NDArray[np.float32] | None, sid: list[int]
) -> tuple[list[float] | None, list[int] | None]:
    if quantizer is None or vector is None:
        return None, None
    latent = quantizer.latent(torch.from_numpy(vector[None]))
    energy = float(quantizer.energy(latent)[0])
    codes = torch.tensor([sid[: quantizer.num_levels]])
    shares = []
    for depth in range(1, codes.shape[1] + 1):
        part = Quantizer(quantizer.kind, quantizer.codebooks[:depth])
        seen = latent[:, :depth] if quantizer.parallel else latent
        missing = float(part.errors(seen, codes[:, :depth])[0])
        if quantizer.parallel:
            missing += float(latent[:, depth:].square().sum())
        shares.append(1 - missing / energy if energy > 0 else 0.0)
    return shares, quantizer.quantize(latent).codes[0].tolist()


def _titles(catalog: Catalog, same: NDArray[np.bool_], row: int, count: int) -> list[str]:
    """Return the most popular other titles of a prefix."""
    others = np.flatnonzero(same)
    others = others[others != row]
    order = others[np.argsort(-catalog.popularity[others], kind="stable")][:count]
    return [catalog.titles[other] or catalog.item_ids[other] for other in order.tolist()]


def _like(item_id: str, catalog: Catalog) -> str:
    """Return a question that names items of a like id, of a title that holds these words, or of a like title."""
    wanted = item_id.casefold()
    near = difflib.get_close_matches(item_id, catalog.item_ids, n=3, cutoff=0.6)
    if not near:
        titles = [title.casefold() for title in catalog.titles]
        rows = [row for row, title in enumerate(titles) if wanted in title][:3]
        if not rows:
            first = {title: row for row, title in reversed(list(enumerate(titles)))}
            rows = [first[title] for title in difflib.get_close_matches(wanted, first, n=3, cutoff=0.6)]
        near = [catalog.item_ids[row] for row in rows]
    named = ", ".join(f"{item} ({catalog.titles[catalog.index_of[item]]})" for item in near)
    return f"; did you mean {named}?" if near else ""
