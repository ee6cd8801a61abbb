"""The training pipeline: from raw events to a registered, signed candidate.

It ends at `register`. Promotion is a person's, and nothing here can import what writes the ledger.
"""

from kfp import dsl

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


@dsl.pipeline(name="sidrec-training", description="Raw events in, a gated and registered bundle out.")
def training(recipe: str, champion: str = ""):  # type: ignore[no-untyped-def]
    """Train, package, judge and register one bundle.

    Args:
        recipe: the recipe's YAML text.
        champion: folder of the bundle that is live, "" for none; the candidate is judged against it.
    """
    raw = validate_events(recipe=recipe).outputs
    data = build_sequences(recipe=recipe, events=raw["events"], sales=raw["sales"], items_raw=raw["items_raw"]).outputs
    features = materialize_features(recipe=recipe, baskets=data["baskets"], items=data["items"]).outputs
    text = embed_items(recipe=recipe, items=data["items"]).outputs
    codebook = train_codebook(
        recipe=recipe,
        vectors=text["vectors"],
        embedder=text["embedder"],
        items=data["items"],
        baskets=data["baskets"],
    ).outputs["codebook"]
    model = train_model(
        recipe=recipe, baskets=data["baskets"], codebook=codebook, training_set=features["training_set"]
    ).outputs["model"]
    aligned = align_model(recipe=recipe, model=model).outputs["model_aligned"]
    bundle = package_bundle(recipe=recipe, codebook=codebook, model=aligned).outputs["bundle"]

    evaluation = evaluate(
        recipe=recipe, champion=champion, bundle=bundle, baskets=data["baskets"], items=data["items"]
    ).outputs["evaluation"]
    serving_check = check_serving(recipe=recipe, bundle=bundle).outputs["serving_check"]
    verdict = sign_verdict(recipe=recipe, bundle=bundle, evaluation=evaluation, serving_check=serving_check).outputs[
        "verdict"
    ]
    register(recipe=recipe, bundle=bundle, verdict=verdict)
