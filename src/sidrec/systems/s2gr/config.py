"""Every setting of S²GR, with the default and where it comes from (docs/papers.md).

Torch-free: recipes load where torch is not installed.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sidrec.quantization.config import CodebookConfig

Thinking = Literal["stepwise", "ahead", "pause", "none"]


class S2GRCodebookConfig(CodebookConfig):
    """The codebook and, for S²GR's supervision, the clusters of its codewords."""

    num_clusters: int = Field(
        16, ge=1, description="Clusters of codewords a level (K_c; the paper has K-means a level, its count is ours)."
    )
    cluster_restarts: int = Field(10, ge=1)
    random_clusters: bool = Field(
        False, description="A control: codes are dealt to clusters at random, and only the extra computation is left."
    )


class S2GRModelConfig(BaseModel):
    """Shape of the encoder-decoder and the weights of its losses.

    "Paper" marks what S²GR reports; the rest is ours, since it left the values open. The paper's widths are those of
    TIGER: `dim` 128, 6 heads of 64, `ff_dim` 1024, 4 + 4 layers, 2 auxiliary layers, dropout 0.1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flatten: bool = Field(False, description="True: the paper's layout, one position a code. False: one a basket.")
    encoder: Literal["causal", "full"] = Field(
        "causal",
        description="full: every position sees the whole history, as in T5, and only the newest position can be a "
        "training point. causal: it sees its own past, so each position is one.",
    )
    max_positions: int = Field(32, ge=1, description="Newest baskets (or items when flat) that the encoder sees.")
    dim: int = Field(64, ge=4)
    num_heads: int = Field(2, ge=1)
    head_dim: int | None = Field(None, ge=1, description="Width of a head; None is dim / num_heads.")
    ff_dim: int = Field(256, ge=1)
    encoder_layers: int = Field(2, ge=1, description="Paper: 4.")
    decoder_layers: int = Field(2, ge=1, description="Paper: 4.")
    auxiliary_layers: int = Field(1, ge=1, description="Paper: half the decoder's.")
    dropout: float = Field(0.2, ge=0, lt=1)
    tie_codes: bool = Field(
        False, description="True: logits against the input embeddings, scaled by dim^-1/2 as in T5."
    )
    thinking: Thinking = Field(
        "stepwise",
        description="stepwise: the paper's, a thinking token before each code. ahead: all of them before the first "
        "code. pause: a learnt constant in each one's place, the equal-compute control. none: TIGER.",
    )
    prefix_bias: bool = Field(True, description="Learnt bias per trie prefix beside its log popularity.")
    align_space: Literal["projection", "token"] = Field(
        "projection",
        description="Where a token meets its centres: projection, P t_l against centres of codewords; token, t_l "
        "against the mean code embeddings of each cluster, without gradient.",
    )
    contrast_to_codes: bool = Field(True, description="Whether the whole-item contrast moves the code embeddings.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of a code's target that is spread over the codes possible there."
    )
    align_temperature: float = Field(0.07, gt=0)
    contrast_temperature: float = Field(0.1, gt=0)
    align_weight: float = Field(1.0, ge=0, description="Paper: 1.")
    contrast_weight: float = Field(1.0, ge=0, description="Paper: 1.")
    regulariser_weight: float = Field(0.1, ge=0, description="Lambda of L_Reg.")

    @field_validator("thinking", mode="before")
    @classmethod
    def _yes_and_no(cls, value: object) -> object:
        """Read the yes or no of bundles from before there were kinds."""
        if isinstance(value, bool):
            return "stepwise" if value else "none"
        return value

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.head_dim is None and self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}: change one, or head_dim")
        return self

    @property
    def supervised(self) -> bool:
        """Whether the thinking tokens are states that losses can reach."""
        return self.thinking in ("stepwise", "ahead")


class S2GRTrainingConfig(BaseModel):
    """Optimisation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(14, ge=1)
    validate_every: int = Field(
        0, ge=0, description="Epochs between two looks at NDCG@10 on held-out rows, where there are any; 0 never looks."
    )
    patience: int = Field(10, ge=1, description="Looks without a better one after which training stops.")
    points: Literal["all", "sampled", "last"] = Field(
        "all",
        description="Which baskets of a user an epoch predicts: all but the first (sliding windows), one at random, "
        "or the newest only (no augmentation).",
    )
    fine_tune_epochs: int = Field(4, ge=1, description="After a refresh within its budget, from the champion.")
    fine_tune_learning_rate: float = Field(1e-3, gt=0)
    batch_users: int = Field(48, ge=1)
    targets_per_basket: int = Field(4, ge=1, description="Target items sampled per basket and epoch.")
    learning_rate: float = Field(3e-3, gt=0)
    schedule: Literal["cosine", "constant", "inverse_sqrt"] = "cosine"
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
    prior: Literal["recent", "static"] = Field(
        "recent", description="Popularity that the prefix prior counts: of the last days, or of the whole fit period."
    )
    prior_smoothing: float = Field(
        0.0, ge=0, description="Purchases in the window that every item is given, so that a new one has a prior."
    )
    prior_window_days: int = Field(28, ge=1, description="Recent popularity that the prefix prior counts.")
    prior_delay_days: int = Field(
        30, ge=0, description="A point's prior is up to so many days older than the point, as a served model's is."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: matrix products in it, weights and sums in float32."
    )
    compile: bool = Field(False, description="torch.compile, where there is a CUDA device.")
    checkpoint_minutes: float = Field(1.0, gt=0)
