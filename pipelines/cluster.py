"""What a cluster gives each step: image, size, volumes, secrets, price; read from `infra/cluster.yaml`.

Imports no platform: a plan needs the numbers, not KFP.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sidrec.settings import read_settings

DEFAULT = Path(__file__).parents[1] / "infra" / "cluster.yaml"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Images(_Frozen):
    """One image for steps on a CPU, one for those that fit a model."""

    steps: str
    train: str


class Size(_Frozen):
    """What one step may use; it asks for all of it, so that no neighbour slows it down."""

    image: Literal["steps", "train"] = "steps"
    cpu: float = Field(gt=0)
    memory_gib: float = Field(gt=0)
    gpus: int = Field(0, ge=0)
    timeout_s: int = Field(gt=0, description="After this the pod is ended; it counts as a failure.")
    retries: int = Field(0, ge=0, description="For steps that a lost node or a busy store can fail, not for gates.")

    @model_validator(mode="after")
    def _gpus_where_something_uses_them(self) -> Self:
        if self.gpus and self.image != "train":
            raise ValueError("gpus are for the image `train`: no other one computes on them")
        return self


class SecretFiles(_Frozen):
    """A secret whose keys become files in these steps, and variables that name them."""

    path: str
    steps: tuple[str, ...]
    env: dict[str, str] = Field(default_factory=dict)


class SecretEnv(_Frozen):
    """A secret whose keys become variables in these steps."""

    env: dict[str, str] = Field(description="The secret's key -> the variable.")
    steps: tuple[str, ...]


class Accelerator(_Frozen):
    """How a step asks for a GPU, and which nodes have one."""

    resource: str = "nvidia.com/gpu"
    node_labels: dict[str, str] = Field(default_factory=dict)
    taint: str | None = Field(None, description="Key of the taint that keeps others off these nodes.")


class Prices(_Frozen):
    """What an hour of each costs."""

    currency: str
    cpu_hour: float = Field(ge=0)
    gib_hour: float = Field(ge=0)
    gpu_hour: float = Field(ge=0)

    def cost(self, size: Size, seconds: float) -> float:
        """Return what a step of this size costs, in `currency`."""
        hourly = size.cpu * self.cpu_hour + size.memory_gib * self.gib_hour + size.gpus * self.gpu_hour
        return hourly * seconds / 3600


class Cluster(_Frozen):
    """The whole file."""

    images: Images
    volumes: dict[str, str] = Field(description="Claim -> where it is mounted in every step.")
    secret_files: dict[str, SecretFiles] = Field(default_factory=dict)
    secret_env: dict[str, SecretEnv] = Field(default_factory=dict)
    accelerator: Accelerator
    default: Size
    steps: dict[str, Size]
    prices: Prices
    user: int = Field(10001, gt=0, description="Numeric user of our images.")

    def size_of(self, step: str) -> Size:
        """Return what a step gets."""
        return self.steps.get(step, self.default)

    def image_of(self, step: str) -> str:
        """Return the image that a step runs in."""
        return str(getattr(self.images, self.size_of(step).image))


def load_cluster(path: Path = DEFAULT) -> Cluster:
    """Return the settings in a file.

    Raises:
        UsageError: it is not there, or a value is missing, unknown or impossible.
    """
    return read_settings(path, Cluster, "cluster settings", next_step="--cluster infra/cluster.yaml")
