"""What is asked when serving is measured: a small bundle with 20 beams, a real Triton, the gateway before it."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import polars as pl
import torch
import yaml

from components.package_bundle import run as package
from components.train_model import run as train_model
from serving.gateway.process import GatewayProcess
from serving.triton import repository
from serving.triton.server import TritonServer, free_port
from sidrec.bundle import Bundle, open_bundle
from sidrec.client import RecommendClient
from sidrec.clock import DAY_S
from sidrec.codebook.artefact import Codebook
from sidrec.data.catalog import Catalog
from sidrec.errors import ServingError
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.fit import encoder_of
from sidrec.quantization.quantizer import Quantizer
from sidrec.recipe import Recipe, parse_recipe
from sidrec.recommender import Request
from sidrec.release.revision import BundleRef, single_arm

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "pipelines" / "recipes"
WIDTH = 16
_EPOCH = date(1970, 1, 1)
_START_S = 120.0
_DEADLINE_MS = 60_000


@dataclass(frozen=True)
class Shape:
    """How large the model is; its quality means nothing, its answers are exact all the same."""

    kind: Literal["s2gr", "reg4rec", "sidreasoner"] = "s2gr"
    levels: int = 3
    items: int = 3000
    codes: int = 64
    dim: int = 64
    ff_dim: int = 256
    layers: int = 2
    users: int = 64
    beam_width: int = 20

    def __str__(self) -> str:
        return (
            f"{self.items} items, {self.levels}x{self.codes} codes, d={self.dim}, {self.layers}+{self.layers} layers, "
            f"{self.beam_width} beams"
        )


@dataclass(frozen=True)
class Doors:
    """Both doors of one server, and the bundle that answers."""

    bundle: Bundle
    server: TritonServer
    gateway: GatewayProcess

    @property
    def groups(self) -> tuple[int, ...]:
        """Process groups of the server and of the gateway."""
        processes = (self.server.process, self.gateway.process)
        return tuple(process.pid for process in processes if process is not None)


@contextlib.contextmanager
def doors(folder: Path, shape: Shape) -> Iterator[Doors]:
    """Yield both doors once they answer, and end them."""
    bundle = make_bundle(folder, shape)
    # A deadline that is never near: an answer with fewer beams would look like a faster one.
    revision = single_arm(1, bundle).model_copy(update={"clock": "event", "deadline_ms": _DEADLINE_MS})

    def export(ref: BundleRef, target: Path, verdict: Path) -> None:
        shutil.copytree(bundle.folder, target)

    repository.write_version(folder / "repository", revision, export, lambda opened, verdict: None)
    repository.point_to(folder / "repository", revision.revision)
    server = TritonServer(folder / "repository", folder / "home", folder / "triton.log", free_port(), free_port())
    settings = {
        "SIDREC_HOME": str(folder / "home"),
        "BENTOML_HOME": str(folder / "bentoml"),
        "SIDREC_GATEWAY_TOKEN": "",
        "SIDREC_GATEWAY_DEADLINE_MS": str(_DEADLINE_MS),
    }
    with mock.patch.dict(os.environ, settings):
        gateway = GatewayProcess(free_port(), server.url, folder / "gateway.log")
        try:
            server.start()
            _wait(server)
            gateway.start()
            gateway.wait_answer()
            yield Doors(bundle, server, gateway)
        finally:
            gateway.stop()
            server.stop()


def make_bundle(folder: Path, shape: Shape) -> Bundle:
    """Return a packaged bundle of a model that was fitted for one epoch on made-up baskets."""
    recipe = _recipe(shape)
    random = np.random.default_rng(recipe.seed)
    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    _write_codebook(inputs / "codebook", shape, random)
    item_ids = Catalog.read(inputs / "codebook" / "catalogue.parquet").item_ids
    rows = [
        {
            "user_id": f"u{user}",
            "day": recipe.gate_start - timedelta(days=back),
            "time": ((recipe.gate_start - _EPOCH).days - back) * DAY_S,
            "item_ids": sorted(random.choice(item_ids, size=5, replace=False).tolist()),
        }
        for user in range(shape.users)
        for back in (80, 50, 20)
    ]
    pl.DataFrame(rows).write_parquet(inputs / "baskets")
    pl.DataFrame(schema={"user_id": pl.String, "day": pl.Date}).write_parquet(inputs / "training_set")
    given = {name: inputs / name for name in ("baskets", "training_set", "codebook")}
    (folder / "fit").mkdir()
    # A step tells of its progress; standard output is the report's.
    with contextlib.redirect_stdout(sys.stderr):
        train_model.run(recipe, given, folder / "fit")
    (folder / "package").mkdir()
    package.run(recipe, {"codebook": inputs / "codebook", "model": folder / "fit" / "model"}, folder / "package")
    return open_bundle(folder / "package" / "bundle")


def requests(catalog: Catalog, as_of: int, count: int, seed: int) -> list[Request]:
    """Return customers with one to eight baskets of one to six items."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        ids: list[str] = []
        times: list[int] = []
        for back in sorted(random.choice(np.arange(1, 300), size=random.integers(1, 9), replace=False), reverse=True):
            items = random.choice(len(catalog), size=random.integers(1, 7), replace=False)
            ids += [catalog.item_ids[item] for item in items.tolist()]
            times += [as_of - int(back) * DAY_S] * len(items)
        made.append(Request(tuple(ids), tuple(times), k=10, now=as_of))
    return made


def arguments(request: Request) -> dict[str, Any]:
    """Return a request as both clients and the gateway take it."""
    return {"history": list(request.item_ids), "history_time": list(request.times), "k": request.k}


def _recipe(shape: Shape) -> Recipe:
    values = yaml.safe_load((RECIPES / f"{shape.kind}_debug.yaml").read_text(encoding="utf-8"))
    values["name"] = "bench_serve"
    values["codebook"] |= {"num_levels": shape.levels, "codebook_size": shape.codes, "code_dim": WIDTH}
    values["training"] |= {"epochs": 1, "checkpoint_minutes": 60}
    sizes = {"dim": shape.dim, "ff_dim": shape.ff_dim}
    if shape.kind == "sidreasoner":
        # One stack does what the others' two do.
        values["model"]["tiny"] |= sizes | {"num_layers": 2 * shape.layers}
        values["search"]["mode"] = "direct"
    else:
        values["model"] |= sizes | {"encoder_layers": shape.layers, "decoder_layers": shape.layers}
        values["training"]["batch_users"] = 32
        values["repeat"] = {"enabled": False}
    if shape.kind == "s2gr":
        values["codebook"]["num_clusters"] = 8
    values["decoding"]["beam_width"] = shape.beam_width
    return parse_recipe(yaml.safe_dump(values))


def _write_codebook(folder: Path, shape: Shape, random: np.random.Generator) -> None:
    config = CodebookConfig.model_validate(
        {"num_levels": shape.levels, "codebook_size": shape.codes, "code_dim": WIDTH, "hidden_dims": (32,)}
    )
    words = torch.from_numpy(random.normal(size=(shape.levels, shape.codes, WIDTH)).astype(np.float32))
    Codebook(config, Quantizer("rqvae", words, encoder_of(config, 32)), 32, "bench").save(folder)
    codes = _distinct(shape, random)
    bought = random.zipf(1.6, size=shape.items).clip(max=400)
    names = [f"i{item:05d}" for item in range(shape.items)]
    table = pl.DataFrame({"item_id": names, "title": names, "popularity": bought * 10, "recent_popularity": bought})
    Catalog.build(table, codes).write(folder / "catalogue.parquet")


def _distinct(shape: Shape, random: np.random.Generator) -> "np.ndarray[Any, np.dtype[np.int32]]":
    """Return the codes of as many different semantic IDs as there are items."""
    found = np.zeros((0, shape.levels), dtype=np.int32)
    while len(found) < shape.items:
        more = random.integers(shape.codes, size=(shape.items, shape.levels), dtype=np.int32)
        found = np.unique(np.concatenate([found, more]), axis=0)
    return random.permutation(found)[: shape.items]


def _wait(server: TritonServer) -> None:
    deadline = time.monotonic() + _START_S
    with RecommendClient(server.url, retries=0) as client:
        while True:
            try:
                client.recommend(k=1, context={"canary": True}, timeout_s=2.0)
                return
            except ServingError as error:
                if time.monotonic() > deadline or not server.running():
                    seen = server.log_tail(1) or error.message
                    raise ServingError(f"the server gives no answer: {seen}", evidence=server.log) from error
                time.sleep(0.1)
