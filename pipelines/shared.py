"""What the training and the refresh pipelines share: the way in from raw events, and the way out to `register`.

Both ends are plain functions that pipelines call while they are compiled; every edge is still in the pipeline's graph.
"""

from dataclasses import dataclass
from typing import Any

from components.align_model.component import align_model
from components.build_sequences.component import build_sequences
from components.check_serving.component import check_serving
from components.embed_items.component import embed_items
from components.evaluate.component import evaluate
from components.materialize_features.component import materialize_features
from components.package_bundle.component import package_bundle
from components.register.component import register
from components.sign_verdict.component import sign_verdict
from components.train_codebook.component import train_codebook
from components.train_model.component import train_model
from components.validate_events.component import validate_events
from components.write_corpus.component import write_corpus


@dataclass(frozen=True)
class Prepared:
    """Outputs of the steps before the model."""

    data: dict[str, Any]
    features: dict[str, Any]
    codebook: dict[str, Any]


def prepare(recipe: Any, champion: Any, broken: Any, *, carry_from: Any) -> Prepared:
    """Return events validated, sequences and features built, items embedded and the codebook's verb carried out.

    Args:
        carry_from: as of `release`; a model that is trained from scratch loses nothing by moved semantic IDs.
    """
    raw = validate_events(recipe=recipe).outputs
    data = build_sequences(recipe=recipe, events=raw["events"], sales=raw["sales"], items_raw=raw["items_raw"]).outputs
    features = materialize_features(recipe=recipe, baskets=data["baskets"], items=data["items"]).outputs
    text = embed_items(recipe=recipe, champion=champion, items=data["items"]).outputs
    codebook = train_codebook(
        recipe=recipe,
        champion=champion,
        carry_from=carry_from,
        broken=broken,
        vectors=text["vectors"],
        embedder=text["embedder"],
        items=data["items"],
        baskets=data["baskets"],
    ).outputs
    return Prepared(data, features, codebook)


def release(recipe: Any, champion: Any, prepared: Prepared, *, carry_from: Any) -> None:
    """Train, package, judge and register.

    Args:
        carry_from: folder of the live bundle where its model is carried or fine-tuned; "" trains from scratch.
    """
    data, codebook = prepared.data, prepared.codebook
    corpus = write_corpus(
        recipe=recipe,
        champion=carry_from,
        baskets=data["baskets"],
        codebook=codebook["codebook"],
        decision=codebook["decision"],
    ).outputs["prepared"]
    model = train_model(
        recipe=recipe,
        champion=carry_from,
        baskets=data["baskets"],
        codebook=codebook["codebook"],
        decision=codebook["decision"],
        prepared=corpus,
        training_set=prepared.features["training_set"],
    ).outputs["model"]
    aligned = align_model(
        recipe=recipe,
        model=model,
        baskets=data["baskets"],
        codebook=codebook["codebook"],
        training_set=prepared.features["training_set"],
    ).outputs["model_aligned"]
    bundle = package_bundle(recipe=recipe, codebook=codebook["codebook"], model=aligned).outputs["bundle"]
    evaluation = evaluate(
        recipe=recipe, champion=champion, bundle=bundle, baskets=data["baskets"], items=data["items"]
    ).outputs["evaluation"]
    serving_check = check_serving(recipe=recipe, bundle=bundle).outputs["serving_check"]
    verdict = sign_verdict(recipe=recipe, bundle=bundle, evaluation=evaluation, serving_check=serving_check).outputs[
        "verdict"
    ]
    register(recipe=recipe, bundle=bundle, verdict=verdict)
