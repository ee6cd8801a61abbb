"""Every setting of S²GR, with the default and where it comes from (docs/papers.md).

Torch-free: recipes load where torch is not installed.
"""

from pydantic import BaseModel, ConfigDict, Field

from sidrec.quantization.config import CodebookConfig


class S2GRCodebookConfig(CodebookConfig):
    """The codebook and, for S²GR's supervision, the clusters of its codewords."""

    num_clusters: int = Field(16, ge=1, description="K-means clusters of codewords per level.")
    cluster_restarts: int = Field(10, ge=1)


class S2GRModelConfig(BaseModel):
    """Shape of the encoder-decoder and the weights of its losses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flatten: bool = Field(False, description="True: the paper's layout, one position a code. False: one a basket.")
    max_positions: int = Field(32, ge=1, description="Newest baskets (or items when flat) that the encoder sees.")
    dim: int = Field(64, ge=4)
    num_heads: int = Field(2, ge=1)
    ff_dim: int = Field(256, ge=1)
    encoder_layers: int = Field(2, ge=1)
    decoder_layers: int = Field(2, ge=1)
    auxiliary_layers: int = Field(1, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    thinking: bool = Field(True, description="False drops the thinking tokens: a TIGER-like control.")
    prefix_bias: bool = Field(True, description="Learnt bias per trie prefix, initialised at log popularity.")
    align_temperature: float = Field(0.07, gt=0)
    contrast_temperature: float = Field(0.1, gt=0)
    align_weight: float = Field(1.0, ge=0)
    contrast_weight: float = Field(1.0, ge=0)
    regulariser_weight: float = Field(0.1, ge=0)


class S2GRTrainingConfig(BaseModel):
    """Optimisation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(14, ge=1)
    fine_tune_epochs: int = Field(4, ge=1, description="After a refresh within its budget, from the champion.")
    fine_tune_learning_rate: float = Field(1e-3, gt=0)
    batch_users: int = Field(48, ge=1)
    targets_per_basket: int = Field(4, ge=1, description="Target items sampled per basket and epoch.")
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_share: float = Field(0.05, ge=0, lt=1)
    gradient_clip: float = Field(1.0, gt=0)
    item_dropout: float = Field(0.2, ge=0, lt=1, description="Share of a basket's items left out of its embedding.")
    validation_days: int = Field(31, ge=1, description="Last days of the fit period: the repeat gate is learnt there.")
    held_out_epochs: int | None = Field(
        None, ge=1, description="Epochs of the fit that ends before the validation days; None is as many."
    )
    repeat_weight: float = Field(1.0, ge=0, description="Weight of a target that is a repeat; a novel one has 1.")
    half_life_days: float | None = Field(
        None, gt=0, description="Weight of a basket halves with this age; None: equal."
    )
    average_decay: float = Field(0.99, ge=0, lt=1, description="Exponential average of the weights over steps.")
    split_share: float = Field(
        0.0, ge=0, le=1, description="Share of baskets that an epoch splits: the rest is predicted from a part."
    )
    prior_window_days: int = Field(28, ge=1, description="Recent popularity that the prefix prior counts.")
    prior_delay_days: int = Field(
        30, ge=0, description="A point's prior is up to so many days older than the point, as a served model's is."
    )
    checkpoint_minutes: float = Field(1.0, gt=0)


class RepeatConfig(BaseModel):
    """The repeat path: a copy distribution over the history, mixed in with a learnt gate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    half_life_days: float = Field(120.0, gt=0)
