"""Every setting of SIDReasoner (arXiv 2603.23183). A default's source stands in brackets behind it.

[paper]: the paper or a note of it. [code]: the authors' release, where it differs or says more. [ours]: neither says.
Torch-free: recipes load where torch is not installed.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Precision = Literal["float32", "bfloat16"]
Schedule = Literal["linear", "cosine", "constant", "inverse_sqrt"]
Mode = Literal["direct", "think", "auto"]

TINY = "tiny"


class TinyConfig(BaseModel):
    """Shape of the embedded backbone: Qwen3's architecture at a size that a laptop trains from nothing [ours]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_layers: int = Field(4, ge=1)
    dim: int = Field(256, ge=8)
    ff_dim: int = Field(768, ge=8)
    num_heads: int = Field(8, ge=1)
    num_key_heads: int = Field(4, ge=1)
    head_dim: int = Field(32, ge=4, description="Even: rotary positions turn pairs.")
    vocabulary: int = Field(4000, ge=300, description="Text tokens of the tokenizer; every byte is one of them.")

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.num_heads % self.num_key_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_key_heads {self.num_key_heads}: change one"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd, and rotary positions turn pairs: make it even")
        return self


class SIDReasonerModelConfig(BaseModel):
    """The language model and what it is shown of a user."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = Field(
        TINY,
        description="`tiny`: made here, from random weights [ours]. Else a name on the hub or a local folder; the "
        "paper's is Qwen/Qwen3-1.7B [paper].",
    )
    download: bool = Field(False, description="True: a backbone that is not on this machine is fetched. [ours]")
    tiny: TinyConfig = TinyConfig.model_validate({})
    lora_rank: int = Field(
        0,
        ge=0,
        description="0: every weight is trained [paper]. Else: adapters of this rank and the new words' embeddings, "
        "merged at the end of each stage. [ours]; a reproduction aligned with LoRA and lost nothing.",
    )
    max_history: int = Field(10, ge=1, description="Newest items of a history that a prompt names. [paper]")
    max_tokens: int = Field(1024, ge=64, description="A longer sample loses its beginning. [paper]")


class TeacherConfig(BaseModel):
    """Who writes the corpus: rules, offline, or a language model behind an OpenAI-compatible server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["template", "openai"] = Field("template", description="[ours]; the paper's is GPT-4o-mini [paper].")
    base_url: str = Field("https://api.openai.com/v1", description="openai: vLLM, llama.cpp and Ollama speak it too.")
    model: str = Field("gpt-4o-mini", description="openai. [paper]")
    api_key_env: str = Field("OPENAI_API_KEY", description="openai: environment variable of the key; may be unset.")
    concurrency: int = Field(8, ge=1, description="openai: requests in flight. [ours]")
    timeout_s: float = Field(60.0, gt=0, description="openai. [ours]")
    retries: int = Field(5, ge=0, description="openai: after 429, 5xx, a time-out or a reply that is no reply. [ours]")
    json_mode: bool = Field(True, description="openai: ask the server for a JSON object where one is wanted. [ours]")
    prompt_price: float = Field(0.0, ge=0, description="openai: money a million prompt tokens cost; 0 is unknown.")
    completion_price: float = Field(0.0, ge=0, description="openai: money a million written tokens cost.")


class SIDReasonerCorpusConfig(BaseModel):
    """The texts that teach what semantic IDs mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: TeacherConfig = TeacherConfig.model_validate({})
    items: int | None = Field(None, ge=1, description="Most sold items that get a text; None is all. [paper]")
    histories: int | None = Field(2000, ge=1, description="Training rows that get a monologue and a story. [ours]")
    attempts: int = Field(3, ge=1, description="Times a text is asked for until its checks hold. [ours]")
    max_fallback_share: float = Field(
        0.2, ge=0, le=1, description="More texts than that by the template in place of the teacher stop the run. [ours]"
    )
    temperature: float = Field(0.7, ge=0, description="[ours]")


class SIDReasonerTrainingConfig(BaseModel):
    """Stage 1: semantic IDs and language are aligned by a mixture of tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(10, ge=1, description="[paper]")
    tokens_per_batch: int = Field(16_384, ge=64, description="Padding counted. [ours]")
    accumulate: int = Field(1, ge=1, description="Batches a step. [ours]; 1,024 samples a step [paper].")
    learning_rate: float = Field(3e-4, gt=0, description="[code]; for smaller batches less, from random weights more.")
    fine_tune_epochs: int = Field(2, ge=1, description="After a refresh within its budget, from the champion. [ours]")
    fine_tune_learning_rate: float = Field(1e-4, gt=0, description="[ours]")
    schedule: Schedule = Field("linear", description="[code]")
    warmup_share: float = Field(0.02, ge=0, lt=1, description="[ours]; 20 steps [code].")
    weight_decay: float = Field(0.0, ge=0, description="[code]")
    gradient_clip: float = Field(1.0, gt=0, description="[code]")
    average_decay: float = Field(0.0, ge=0, lt=1, description="0: the last step's weights are the model's. [code]")
    targets_per_basket: int = Field(1, ge=1, description="Items of a next basket that are asked for. [ours]")
    rows_per_task: int | None = Field(None, ge=1, description="None: every row of every task. [paper]")
    item_texts: bool = Field(True, description="Task 7, the enriched texts of items. False: the paper's S1, with 8.")
    user_texts: bool = Field(True, description="Task 8, the enriched stories of histories.")
    general: Path | None = Field(
        None, description="JSON lines with `messages`, general chats against forgetting; none is shipped. [ours]"
    )
    general_rows: int = Field(60_000, ge=1, description="[code]")
    validate_every: int = Field(1, ge=0, description="Epochs between two looks at held-out rows; 0: never. [code]")
    patience: int = Field(3, ge=1, description="Looks without a better one after which the stage ends. [code]")
    held_out_share: float = Field(
        0.05, ge=0, lt=1, description="Of users, whose loss selects where no validation is given. [ours]"
    )
    held_out_rows: int = Field(512, ge=1, description="[ours]")
    validation_days: int = Field(31, ge=1, description="Last days of the fit period that rows to validate by are of.")
    precision: Precision = Field("float32", description="Of the losses; bfloat16 [code] on a GPU.")
    checkpoint_minutes: float = Field(5.0, gt=0)
    shard_weights: bool = Field(
        False, description="Under torchrun, a rank holds a part of the weights and of what moves them (FSDP). [ours]"
    )


class SIDReasonerActivationConfig(BaseModel):
    """Stage 2a: a short fit on rationales, so that the model knows how to think; longer ones imitate the teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    epochs: int = Field(1, ge=1, description="[paper]; 5 [code].")
    tokens_per_batch: int = Field(16_384, ge=64, description="Padding counted. [ours]")
    accumulate: int = Field(1, ge=1, description="Batches a step. [ours]; 1,024 samples a step [paper].")
    learning_rate: float = Field(1e-5, gt=0, description="[code]")
    schedule: Schedule = Field("linear", description="[code]")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="[ours]; 10 steps [code].")
    direct_share: float = Field(
        0.0, ge=0, description="Direct rows beside each row that thinks, to keep that mode. [ours]; 0 [paper]."
    )


class SIDReasonerAlignmentConfig(BaseModel):
    """Stage 2b: GRPO on sampled rationales."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    rollout: Literal["free", "trace_then_trie"] = Field(
        "trace_then_trie",
        description="free: rationale and semantic ID are sampled alike [code]. trace_then_trie: the semantic ID is "
        "sampled under the trie, since a small model rarely hits one [ours].",
    )
    group_size: int = Field(16, ge=2, description="Samples of a prompt. [paper]")
    prompts_per_step: int = Field(256, ge=1, description="[code]")
    steps: int = Field(100, ge=1, description="Released runs name 100 and 440. [code]")
    max_rationale_tokens: int = Field(1024, ge=1, description="[code]")
    temperature: float = Field(1.0, gt=0, description="[code]")
    learning_rate: float = Field(5e-7, gt=0, description="[code]")
    weight_decay: float = Field(0.01, ge=0, description="[code]")
    clip: float = Field(0.2, gt=0, lt=1, description="[code]")
    kl_weight: float = Field(1e-3, ge=0, description="Of the k3 estimate against the model of stage 2a. [code]")
    valid_reward: float = Field(0.1, ge=0, description="lambda: for a semantic ID that is an item's. [paper]")
    validate_every: int = Field(20, ge=1, description="Steps between two looks at held-out rows: a round. [ours]")
    patience: int = Field(3, ge=1, description="Rounds in a row without a better one after which it ends. [ours]")
    tokens_per_pass: int = Field(16_384, ge=64, description="Of samples in memory at once; no result depends on it.")

    max_kl: float = Field(0.5, gt=0, description="Nats a word that the policy may be away from stage 2a's. [ours]")
    min_diversity: float = Field(0.5, ge=0, le=1, description="Least share of stage 2a's distinct answers. [ours]")
    min_valid: float = Field(0.8, ge=0, le=1, description="Least share of its answers that are items. [ours]")


class SIDReasonerSearchConfig(BaseModel):
    """How an answer is made; no supervised weight depends on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = Field(
        "direct",
        description="direct: beams behind an empty rationale. think: a greedy rationale, then beams [paper]. auto: "
        "think only where direct is not sure. [ours]: think cost quality in an independent reproduction.",
    )
    max_rationale_tokens: int = Field(1024, ge=1, description="A rationale that has not ended by then is cut. [paper]")
    engine: Literal["own", "vllm"] = Field(
        "own", description="What writes rationales where a model answers. vllm is installed beside us. [ours]"
    )
    margin: float = Field(
        0.5, ge=0, description="auto: nats between the best two items of direct below which it is not sure. [ours]"
    )
