"""One run's settings: a flat YAML file that names every value a run depends on.

`kind` decides which system's sections it has. Torch-free.
"""

import hashlib
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from sidrec.clock import ClockMode, day_start
from sidrec.codebook.config import LifecycleConfig
from sidrec.data.config import DataConfig, EmbeddingConfig, FeaturesConfig, ValidationConfig
from sidrec.decoding.config import DecodingConfig
from sidrec.errors import RecipeError
from sidrec.evaluation.config import EvaluationConfig, GateConfig
from sidrec.quantization.config import CodebookConfig
from sidrec.systems.config import RepeatConfig
from sidrec.systems.reg4rec.config import (
    Reg4RecAlignmentConfig,
    Reg4RecModelConfig,
    Reg4RecSearchConfig,
    Reg4RecTrainingConfig,
)
from sidrec.systems.s2gr.config import S2GRCodebookConfig, S2GRModelConfig, S2GRTrainingConfig
from sidrec.systems.sidreasoner.config import (
    TINY,
    SIDReasonerActivationConfig,
    SIDReasonerAlignmentConfig,
    SIDReasonerCorpusConfig,
    SIDReasonerModelConfig,
    SIDReasonerSearchConfig,
    SIDReasonerTrainingConfig,
)

if TYPE_CHECKING:
    from sidrec.data.catalog import Catalog
    from sidrec.systems.base import FitInputs, System


# Letters of the alphabet but one, which is the disambiguation code's.
MAX_LEVELS = 25


class ServingConfig(BaseModel):
    """How a revision of this bundle answers unless the release owner says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clock: ClockMode = Field("wall", description="`event` only for replays of old data.")
    deadline_ms: int = Field(2000, ge=1, description="Budget of a request; nearer than half of it, fewer beams.")
    history_deadline_ms: int = Field(200, ge=1, description="A feature read that takes longer is a cold answer.")
    exposure_flush_s: float = Field(5.0, gt=0)


class MonitoringConfig(BaseModel):
    """Windows and thresholds of the drift report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warn_psi: float = Field(0.20, gt=0)
    alarm_psi: float = Field(0.25, gt=0)
    warn_ratio: float = Field(2.0, gt=0, description="JS divergence over its sampling noise floor.")
    alarm_ratio: float = Field(2.5, gt=0)
    min_events: int = Field(5000, ge=1, description="Purchases in a window below which there is no verdict.")
    min_requests: int = Field(200, ge=1, description="Requests on either side below which a measure says nothing.")


class _RecipeBase(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    prepares: ClassVar[bool] = False
    """Whether its system prepares its fit (`systems.base.Prepares`); said where no torch is needed to read it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    seed: int = 0
    threads: int = Field(2, ge=1, description="Torch threads of training; results are promised equal for one count.")
    as_of: date = Field(description="Nothing on or after this day reaches a fit, a tuning or a metric.")
    gate_days: int = Field(30, ge=1, description="The gate window: [as_of - gate_days, as_of).")
    data: DataConfig
    validation: ValidationConfig
    features: FeaturesConfig
    embedding: EmbeddingConfig
    decoding: DecodingConfig
    evaluation: EvaluationConfig
    gates: GateConfig
    serving: ServingConfig
    monitoring: MonitoringConfig

    @property
    def gate_start(self) -> date:
        """First day of the gate window; the fit period ends the day before."""
        return self.as_of - timedelta(days=self.gate_days)

    @property
    def as_of_time(self) -> int:
        """`as_of` at midnight UTC, unix seconds."""
        return day_start(self.as_of)

    def section(self, name: str) -> Any:
        """Return a section, or the value at a dotted path, as plain JSON data (None where this kind has none)."""
        found: Any = self.model_dump(mode="json")
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found


class PopularityRecipe(_RecipeBase):
    """Popular items for everybody: the smallest system, for a smoke run and as a last resort."""

    kind: Literal["popularity"]


class S2GRRecipe(_RecipeBase):
    """S²GR (arXiv 2601.18664)."""

    kind: Literal["s2gr"]
    codebook: S2GRCodebookConfig
    lifecycle: LifecycleConfig = LifecycleConfig.model_validate({})
    model: S2GRModelConfig
    training: S2GRTrainingConfig
    repeat: RepeatConfig

    @model_validator(mode="after")
    def _training_set_reaches_back(self) -> Self:
        """Refuse a training set that starts after the validation days that read it."""
        _check_reach(self.features, self.training.validation_days)
        return self

    @model_validator(mode="after")
    def _points_fit_the_encoder(self) -> Self:
        """Refuse points inside a history that the encoder reads as a whole."""
        if self.model.encoder == "full" and self.training.points == "all":
            raise ValueError(
                "model.encoder full sees the whole history from every position, so training.points all would show "
                "each target to its own point: set points to sampled or last, or the encoder to causal"
            )
        return self


class Reg4RecRecipe(_RecipeBase):
    """REG4Rec (arXiv 2508.15308)."""

    kind: Literal["reg4rec"]
    codebook: CodebookConfig
    lifecycle: LifecycleConfig = LifecycleConfig.model_validate({})
    model: Reg4RecModelConfig
    training: Reg4RecTrainingConfig
    alignment: Reg4RecAlignmentConfig
    repeat: RepeatConfig
    search: Reg4RecSearchConfig

    @model_validator(mode="after")
    def _training_set_reaches_back(self) -> Self:
        """Refuse a training set that starts after the validation days that read it."""
        _check_reach(self.features, self.training.validation_days)
        return self

    @model_validator(mode="after")
    def _ids_are_sets(self) -> Self:
        """Refuse what gives an item a code that is none of a slot's."""
        extra = self.codebook.collision_policy == "extra_code" and self.codebook.quantizer != "mpq"
        if extra or (self.codebook.collision_policy == "sinkhorn_last" and self.codebook.quantizer != "mpq"):
            raise ValueError(
                f"codebook.quantizer {self.codebook.quantizer} with collision_policy {self.codebook.collision_policy} "
                "may add a code to an item, and a set of tokens has one a slot: set quantizer to mpq, or the policy "
                "to nearest_free"
            )
        return self

    @model_validator(mode="after")
    def _pruning_has_categories(self) -> Self:
        """Refuse to prune by categories that were never learnt."""
        if self.search.consistency > 0 and self.model.category_weight == 0:
            raise ValueError(
                f"search.consistency {self.search.consistency} prunes by the categories of steps, and "
                "model.category_weight 0 learns none: set one of them otherwise"
            )
        return self


class SIDReasonerRecipe(_RecipeBase):
    """SIDReasoner (arXiv 2603.23183)."""

    prepares: ClassVar[bool] = True

    kind: Literal["sidreasoner"]
    codebook: CodebookConfig
    lifecycle: LifecycleConfig = LifecycleConfig.model_validate({})
    model: SIDReasonerModelConfig
    corpus: SIDReasonerCorpusConfig
    training: SIDReasonerTrainingConfig
    activation: SIDReasonerActivationConfig
    alignment: SIDReasonerAlignmentConfig
    search: SIDReasonerSearchConfig

    @model_validator(mode="after")
    def _names_are_words_in_order(self) -> Self:
        """Refuse semantic IDs that a language model cannot say."""
        if self.codebook.quantizer == "mpq":
            raise ValueError(
                "codebook.quantizer mpq gives slots without an order, and a language model says one code after the "
                "other, coarsest first: set quantizer to rqvae, residual_kmeans or balanced_kmeans"
            )
        if self.codebook.num_levels > MAX_LEVELS:
            raise ValueError(
                f"codebook.num_levels is {self.codebook.num_levels}, and tokens have letters for {MAX_LEVELS} and a "
                "disambiguation code: set it lower"
            )
        return self

    @model_validator(mode="after")
    def _thinking_is_taught(self) -> Self:
        """Refuse answers behind a rationale by a model that never saw one."""
        if self.search.mode != "direct" and self.model.backbone == TINY and not self.activation.enabled:
            raise ValueError(
                f"search.mode {self.search.mode} writes rationales, and a tiny backbone learns to in activation: set "
                "activation.enabled to true, or the mode to direct"
            )
        return self


def _check_reach(features: FeaturesConfig, validation_days: int) -> None:
    if features.training_set_days < validation_days:
        raise ValueError(
            f"features.training_set_days is {features.training_set_days}, training.validation_days reads "
            f"{validation_days}: make the first at least the second"
        )


Recipe = PopularityRecipe | S2GRRecipe | Reg4RecRecipe | SIDReasonerRecipe
_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])


@runtime_checkable
class FitSettings(Protocol):
    """What every system that is fitted on a codebook says of its fit."""

    @property
    def validate_every(self) -> int: ...  # noqa: D102

    @property
    def validation_days(self) -> int: ...  # noqa: D102


@runtime_checkable
class CodebookRecipe(Protocol):
    """A recipe of a system with a codebook and a fit, whichever it is: what studies and the codebook step ask for."""

    @property
    def seed(self) -> int: ...  # noqa: D102

    @property
    def embedding(self) -> EmbeddingConfig: ...  # noqa: D102

    @property
    def evaluation(self) -> EvaluationConfig: ...  # noqa: D102

    @property
    def codebook(self) -> CodebookConfig: ...  # noqa: D102

    @property
    def lifecycle(self) -> LifecycleConfig: ...  # noqa: D102

    @property
    def training(self) -> FitSettings: ...  # noqa: D102


@runtime_checkable
class RepeatRecipe(Protocol):
    """A recipe of a system with a repeat path, whichever it is."""

    @property
    def repeat(self) -> RepeatConfig: ...  # noqa: D102


def sections() -> tuple[str, ...]:
    """Return the names of all sections and values that a recipe of any kind has."""
    kinds = (PopularityRecipe, S2GRRecipe, Reg4RecRecipe, SIDReasonerRecipe)
    return tuple(sorted({name for kind in kinds for name in kind.model_fields}))


def parse_recipe(text: str) -> Recipe:
    """Return the recipe in a YAML text.

    Raises:
        RecipeError: it is no YAML mapping, has an unknown key, or a value is out of range; every fault is named.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"the recipe is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"a recipe is a YAML mapping, this is {type(values).__name__}")
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']} (seen: {fault['input']!r:.80})"
            for fault in error.errors()
        )
        raise RecipeError(f"the recipe does not load: {faults}") from error


def load_recipe(path: Path) -> tuple[str, Recipe]:
    """Return a recipe file's text and the recipe.

    Raises:
        RecipeError: no such file, or `parse_recipe` refuses it.
    """
    if not path.is_file():
        raise RecipeError(f"no recipe at {path}", next_step="ls pipelines/recipes")
    text = path.read_text(encoding="utf-8")
    return text, parse_recipe(text)


def recipe_hash(recipe: Recipe) -> str:
    """Return the hex SHA-256 of a recipe's values (comments and key order do not matter)."""
    return hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()


def build(recipe: Recipe) -> "System":
    """Return the recipe's system, configured; torch is imported here and not before.

    Raises:
        UsageError: the system needs packages of an extra that is not installed.
    """
    match recipe:
        case PopularityRecipe():
            from sidrec.systems.popularity import PopularitySystem

            return PopularitySystem()
        case S2GRRecipe():
            from sidrec.systems.s2gr.train import S2GRSystem

            return S2GRSystem(recipe.codebook, recipe.model, recipe.training, recipe.repeat)
        case Reg4RecRecipe():
            from sidrec.systems.reg4rec.train import Reg4RecSystem

            return Reg4RecSystem(recipe.model, recipe.training, recipe.alignment, recipe.repeat, recipe.search)
        case SIDReasonerRecipe():
            from sidrec.systems.sidreasoner.packages import require_packages

            require_packages()
            from sidrec.systems.sidreasoner.train import SIDReasonerSystem

            return SIDReasonerSystem(
                recipe.model, recipe.corpus, recipe.training, recipe.activation, recipe.alignment, recipe.search
            )


def fit_inputs(recipe: Recipe, catalog: "Catalog", paths: Mapping[str, Path]) -> "FitInputs":
    """Return what a system may learn from, of a step's inputs: the days before the gate window.

    Args:
        paths: `baskets` and `training_set` (Parquet), `codebook` (a folder); where given, `prepared` (a folder). A
            step that reads no training rows leaves them out.
    """
    import polars as pl

    from sidrec.systems.base import FitInputs

    # Later baskets are the gate's; nothing of them may reach a weight.
    before = pl.col("day") < recipe.gate_start
    rows = pl.scan_parquet(paths["training_set"]).filter(before) if "training_set" in paths else pl.LazyFrame()
    return FitInputs(
        baskets=pl.scan_parquet(paths["baskets"]).filter(before),
        training_set=rows,
        catalog=catalog,
        codebook=paths["codebook"],
        fit_end=recipe.gate_start,
        seed=recipe.seed,
        threads=recipe.threads,
        prepared=paths.get("prepared"),
    )
