"""A codebook on disk: quantizer, frozen embedder and catalogue, with the digest of every file.

The folder holds `codebook.safetensors` and `codebook.json` (the quantizer), `embedder/`, `catalogue.parquet`,
`health.json` and, written last, `artefact.json` with the digests. A bundle holds the same parts under its own manifest.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from torch import Tensor

from sidrec import files
from sidrec.data.catalog import Catalog
from sidrec.errors import BundleError
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.fit import encoder_of
from sidrec.quantization.quantizer import Quantizer

# Format 1 was S²GR's alone: an RQ-VAE with its decoder and the clusters of its codewords.
FORMAT = 2
WEIGHTS = "codebook.safetensors"
HEADER = "codebook.json"
CATALOGUE = "catalogue.parquet"
HEALTH = "health.json"
EMBEDDER = "embedder"
MANIFEST = "artefact.json"


@dataclass(frozen=True, eq=False)
class Codebook:
    """A fitted quantizer, the settings it was fitted by, and where it stands in its lineage."""

    config: CodebookConfig
    quantizer: Quantizer
    width: int
    lineage: str
    """Digest of the embedder whose vectors this codebook was fitted on; other vectors mean nothing to it."""
    generation: int = 1
    """1 for a first fit; an append keeps the codewords and the number, a refresh adds one."""
    parent: str | None = None
    """Digest of the codebook that this generation was refreshed from."""
    appended: int = 0
    """Items that got their semantic ID since the codewords were fitted."""

    @property
    def digest(self) -> str:
        """Hex SHA-256 over the codewords and the encoder: equal on two machines when the codebooks are."""
        tensors = self.tensors()
        content = safetensors.torch.save({name: tensors[name] for name in sorted(tensors)})
        return files.sha256_bytes(content)

    def tensors(self) -> dict[str, Tensor]:
        """Return the codewords and the encoder's weights by name."""
        encoder = {} if self.quantizer.encoder is None else self.quantizer.encoder.state_dict()
        named = {f"encoder.{name}": value for name, value in encoder.items()}
        return {
            name: value.detach().cpu().contiguous()
            for name, value in {"codebooks": self.quantizer.codebooks, **named}.items()
        }

    def save(self, folder: Path) -> None:
        """Write `codebook.safetensors` and `codebook.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = self.tensors()
        safetensors.torch.save_file(tensors, folder / WEIGHTS)
        header = {
            "format": FORMAT,
            "kind": self.quantizer.kind,
            "config": self.config.model_dump(mode="json", include=set(CodebookConfig.model_fields)),
            "width": self.width,
            "lineage": self.lineage,
            "generation": self.generation,
            "parent": self.parent,
            "appended": self.appended,
            "shapes": {name: list(value.shape) for name, value in tensors.items()},
        }
        files.write_json_atomic(folder / HEADER, header)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the codebook that `save` wrote, or that of a bundle of format 1.

        Raises:
            BundleError: a file is missing, of another format, or the two do not belong together.
        """
        try:
            header: dict[str, Any] = files.read_json(folder / HEADER)
            tensors = safetensors.torch.load_file(folder / WEIGHTS)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise BundleError(f"the codebook cannot be read: {error}", evidence=folder) from error
        if header.get("format") not in (1, FORMAT) or "shapes" not in header:
            seen = f"format {header.get('format')!r}, kind {header.get('kind')!r}"
            raise BundleError(f"the codebook has {seen}; expected format 1 or {FORMAT} of a quantizer", evidence=folder)
        if header["shapes"] != {name: list(value.shape) for name, value in tensors.items()}:
            raise BundleError(f"{HEADER} and {WEIGHTS} are of two codebooks: their shapes differ", evidence=folder)
        if header["format"] == 1:
            header, tensors = _from_format_1(header, tensors)
        config = CodebookConfig.model_validate(header["config"])
        encoder = encoder_of(config, header["width"])
        if encoder is not None:
            named = {name.removeprefix("encoder."): value for name, value in tensors.items() if name != "codebooks"}
            encoder.load_state_dict(named)
            encoder = encoder.eval().requires_grad_(False)
        quantizer = Quantizer(header["kind"], tensors["codebooks"], encoder)
        where = {name: header[name] for name in ("lineage", "generation", "parent", "appended")}
        return cls(config, quantizer, header["width"], **where)


@dataclass(frozen=True, eq=False)
class Artefact:
    """An opened codebook folder, or the codebook of an opened bundle."""

    codebook: Codebook
    catalog: Catalog
    embedder: Path
    health: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Return the artefact in `folder`, after every file's digest was found to hold.

        Raises:
            BundleError: a file is missing, extra or altered; it is named.
        """
        check_digests(folder)
        return cls.of_parts(folder, folder / CATALOGUE, folder / EMBEDDER)

    @classmethod
    def in_bundle(cls, folder: Path) -> Self | None:
        """Return the codebook of an opened bundle's folder, None for a system that has none.

        Raises:
            BundleError: its parts do not belong together.
        """
        if not (folder / "codebook" / WEIGHTS).exists():
            return None
        return cls.of_parts(folder / "codebook", folder / CATALOGUE, folder / EMBEDDER)

    @classmethod
    def of_parts(cls, codebook: Path, catalogue: Path, embedder: Path) -> Self:
        """Return the artefact whose parts lie apart, as in a bundle, whose own manifest vouches for them.

        Raises:
            BundleError: the embedder is not the one that the codebook was fitted on.
        """
        opened = Codebook.load(codebook)
        seen = files.sha256_tree(embedder)
        if seen != opened.lineage:
            raise BundleError(
                f"the embedder's digest is {seen[:12]}…, the codebook was fitted on {opened.lineage[:12]}…: "
                "they are of two lineages",
                evidence=embedder,
            )
        health = files.read_json(codebook / HEALTH) if (codebook / HEALTH).exists() else {}
        return cls(opened, Catalog.read(catalogue), embedder, health)


def seal(folder: Path) -> None:
    """Write `artefact.json`: from now on `check_digests` refuses any change."""
    digests = _digests(folder)
    body = {"schema_version": 1, "files": digests}
    files.write_json_atomic(folder / MANIFEST, body | {"checksum": _checksum(body)})


def check_digests(folder: Path) -> None:
    """Refuse a folder that is not exactly what was sealed.

    Raises:
        BundleError: the seal is missing or altered, or a file is missing, extra or altered; it is named.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = files.read_json(path)
        body = {"schema_version": manifest["schema_version"], "files": manifest["files"]}
        holds = manifest == body | {"checksum": _checksum(body)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"no codebook in {folder}, or one whose writing was cut off: {MANIFEST} cannot be read", evidence=path
        ) from error
    if not holds or path.read_text(encoding="utf-8") != files.json_text(manifest):
        raise BundleError(f"{MANIFEST} was altered: its checksum does not hold", evidence=path)
    seen = _digests(folder)
    for name in sorted(set(seen) | set(body["files"])):
        if seen.get(name) != body["files"].get(name):
            what = (
                "is missing"
                if name not in seen
                else "is not part of it"
                if name not in body["files"]
                else "was altered"
            )
            raise BundleError(f"{name} of the codebook {what}", evidence=folder / name)


def _digests(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: files.sha256_file(path) for name, path in named.items() if name != MANIFEST}


def _checksum(body: dict[str, Any]) -> str:
    return files.sha256_bytes(files.json_text(body).encode())


def _from_format_1(header: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a format 1 codebook as format 2 has them."""
    known = {name: value for name, value in header["config"].items() if name in CodebookConfig.model_fields}
    kept = {name: value for name, value in tensors.items() if name.startswith("encoder.")}
    kept["codebooks"] = tensors["quantizer.codebooks"].to(torch.float32)
    return {**header, "kind": "rqvae", "config": known, "generation": 1, "parent": None, "appended": 0}, kept
