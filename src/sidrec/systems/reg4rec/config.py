"""Every setting of REG4Rec (arXiv 2508.15308). No code, size or weight is published: each default is our choice.

Torch-free: recipes load where torch is not installed.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SlotOrder = Literal["confidence", "random", "fixed"]
CategorySource = Literal["metadata", "clusters", "auto"]


class Reg4RecModelConfig(BaseModel):
    """Shape of the encoder-decoder and of its heads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flatten: bool = Field(False, description="True: the paper's layout, one position a token. False: one a basket.")
    max_positions: int = Field(32, ge=1, description="Newest baskets (or items when flat) that the encoder sees.")
    dim: int = Field(64, ge=4)
    num_heads: int = Field(2, ge=1)
    ff_dim: int = Field(256, ge=1)
    encoder_layers: int = Field(2, ge=1)
    decoder_layers: int = Field(2, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    temperature: float = Field(0.1, gt=0, description="tau of the cosine between a tower's output and a code.")
    categories: CategorySource = Field(
        "auto",
        description="What a step names. metadata: the items' own categories. clusters: K-means of their codewords. "
        "auto: metadata where 9 of 10 items have one and there are 8 at least.",
    )
    num_categories: int = Field(
        64, ge=1, description="Most categories a step may name; of the items' own, the finest level with no more."
    )
    category_weight: float = Field(0.2, ge=0, description="0: no category head is learnt, and none is asked.")
    order: SlotOrder = Field(
        "confidence",
        description="Which free slot a step takes. confidence: CRSS. random: a fixed draw a user, the equal-compute "
        "control. fixed: the first.",
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}: change one")
        return self


class Reg4RecTrainingConfig(BaseModel):
    """The supervised stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(14, ge=1)
    validate_every: int = Field(
        0, ge=0, description="Epochs between two looks at NDCG@10 on held-out rows, where there are any; 0 never looks."
    )
    patience: int = Field(10, ge=1, description="Looks without a better one after which training stops.")
    points: Literal["all", "sampled", "last"] = Field(
        "all", description="Which baskets of a user an epoch predicts: all but the first, one at random, or the newest."
    )
    fine_tune_epochs: int = Field(4, ge=1, description="After a refresh within its budget, from the champion.")
    fine_tune_learning_rate: float = Field(1e-3, gt=0)
    batch_users: int = Field(48, ge=1)
    targets_per_basket: int = Field(4, ge=1, description="Target items sampled per basket and epoch.")
    exploration: float = Field(0.3, ge=0, le=1, description="Share of steps whose slot is drawn, not the surest.")
    exploration_temperature: float = Field(1.0, gt=0, description="T of that draw, in proportion to conf^(1/T).")
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
    prior: Literal["recent", "static", "none"] = Field(
        "recent",
        description="Popularity of codes that logits start from: of the last days, of the whole fit period, or none.",
    )
    prior_smoothing: float = Field(0.0, ge=0, description="Purchases in the window that every item is given.")
    prior_window_days: int = Field(28, ge=1)
    prior_delay_days: int = Field(
        30, ge=0, description="A point's prior is up to so many days older than the point, as a served model's is."
    )
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint_minutes: float = Field(1.0, gt=0)


class Reg4RecAlignmentConfig(BaseModel):
    """Alignment by GRPO: rewards (PARS), their horizon (MSRA), the step, and the gates that it must pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    rounds: int = Field(10, ge=1, description="Between two rounds the model is validated and its gates are looked at.")
    users_per_round: int = Field(1024, ge=1)
    batch_users: int = Field(64, ge=1)
    patience: int = Field(3, ge=1, description="Rounds without a better model after which alignment ends.")
    group_size: int = Field(16, ge=2, description="G: paths sampled for a user.")
    updates: int = Field(1, ge=1, description="Steps on the same paths; from the second on the ratio may be clipped.")
    learning_rate: float = Field(1e-4, gt=0)
    clip: float = Field(0.2, gt=0, lt=1)
    kl_weight: float = Field(1e-2, ge=0, description="beta of KL(policy || supervised model).")
    supervised_weight: float = Field(0.1, ge=0, description="Of the supervised loss on the same points.")
    slot_temperature: float = Field(1.0, gt=0, description="T_c: a path takes a slot by softmax(conf / T_c).")

    hit_reward: float = Field(1.0, ge=0, description="Step-Hit, over the number of slots.")
    path_reward: float = Field(1.0, ge=0, description="Global Path.")
    category_reward: float = Field(0.5, ge=0, description="Category-Hit, over the number of slots.")
    consistency_reward: float = Field(0.25, ge=0, description="Step-Consistency, over the number of slots less one.")
    horizon: int = Field(3, ge=1, description="N: future baskets that a path is judged by.")
    decay: float = Field(0.5, gt=0, le=1, description="gamma: weight of the k-th is gamma^(k-1), scaled to sum 1.")

    max_kl: float = Field(0.5, gt=0, description="Nats a step that the policy may be away from the supervised model.")
    min_diversity: float = Field(0.5, ge=0, le=1, description="Least share of the supervised model's distinct paths.")
    min_valid: float = Field(0.8, ge=0, le=1, description="Least share of the supervised model's paths that are items.")


class Reg4RecSearchConfig(BaseModel):
    """How an answer is searched; no supervised weight depends on it, and alignment is judged by it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slots_per_step: int = Field(
        1, ge=1, description="Slots that a hypothesis tries at a step; above 1, orders of one set meet and are merged."
    )
    consistency: float = Field(0.0, ge=0, le=1, description="theta of CORP: paths below are pruned; 0 prunes none.")
    prune_from: int | None = Field(None, ge=2, description="t0: first step that prunes; None is half of the slots.")
