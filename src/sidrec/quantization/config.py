"""Every setting of a codebook: item vectors, quantizer, collisions. Torch-free: recipes load without torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

QuantizerKind = Literal["residual_kmeans", "balanced_kmeans", "rqvae", "mpq"]
CollisionPolicy = Literal["sinkhorn_last", "nearest_free", "extra_code"]


class CodebookConfig(BaseModel):
    """How item vectors are smoothed, quantized and told apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantizer: QuantizerKind = Field(
        "rqvae",
        description="residual_kmeans: fast. balanced_kmeans: the same with codes of equal use. rqvae: CoBa RQ-VAE of "
        "S²GR. mpq: parallel experts of REG4Rec, whose slots have no order.",
    )
    num_levels: int = Field(3, ge=1, description="Codes of a semantic ID: levels, or the slots of mpq.")
    codebook_size: int = Field(256, ge=2)

    windows: Literal["baskets", "events"] = Field(
        "baskets", description="What co-occurs: items of one basket, or events near each other in a history."
    )
    window: int = Field(5, ge=2, description="Events per window, for windows: events.")
    max_neighbours: int = Field(20, ge=1, description="Strongest edges kept per item of the co-occurrence graph.")
    smoothing_alpha: float = Field(0.1, gt=0, le=1, description="Share of content kept at each smoothing step.")
    smoothing_steps: int = Field(3, ge=0, description="0 leaves the content vectors as they are.")

    kmeans_iterations: int = Field(50, ge=1)

    code_dim: int = Field(32, ge=1, description="Width of a codeword of rqvae and mpq.")
    hidden_dims: tuple[int, ...] = Field((256, 128), description="Encoder widths; the decoder mirrors them.")
    commitment_weight: float = Field(0.25, ge=0)
    uniformity_weight: float = Field(0.1, ge=0)
    uniformity_margin: float = Field(0.5, ge=0)
    balance_strength: float = Field(0.5, ge=0, description="Of the usage-adjusted distance; 0 turns it off.")
    balance_bound: float = Field(0.5, ge=0, lt=1)
    revive: bool = Field(True, description="Move codewords that no item is near to onto badly served items.")
    usage_decay: float = Field(0.99, gt=0, lt=1)
    warmup_epochs: int = Field(20, ge=0, description="Epochs of the plain autoencoder before codewords are placed.")
    epochs: int = Field(120, ge=1)
    check_every: int = Field(10, ge=1, description="Epochs between two looks at all items.")
    patience: int = Field(6, ge=1, description="Looks without a better one after which training ends.")
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)

    orthogonality_weight: float = Field(0.005, ge=0, description="mpq: between experts.")
    router_balance_weight: float = Field(0.01, ge=0, description="mpq: keeps the router from ignoring experts.")

    collision_policy: CollisionPolicy = Field(
        "sinkhorn_last",
        description="How items of equal codes are told apart: by free last codes, a Sinkhorn plan choosing; by the "
        "nearest free semantic ID, one code changed; or by one more code. mpq takes nearest_free.",
    )
    sinkhorn_epsilon: float = Field(0.003, gt=0, description="Relative to the largest cost within a prefix.")
    sinkhorn_iterations: int = Field(50, ge=1)
