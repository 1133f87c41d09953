"""What a model is made of, in numbers. Defaults are the published Mimi and Moshi 7B (spec: mimi.md, moshi.md
section 8).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Rope = Literal["interleaved", "halves"]
EOS, PAD = 2, 3  # text tokens of every tokenizer here
BEST = "very_good"  # the condition by which Hibiki asks for its best


@dataclass(frozen=True)
class TransformerConfig:
    """A stack of pre-norm blocks; serves the codec, the temporal and the depth transformer."""

    width: int
    heads: int
    layers: int
    hidden: int  # width inside the feed-forward
    context: int | None = None  # keys a query sees, itself included; None: no window
    max_period: float = 10_000.0
    rope: Rope | None = "interleaved"
    kv_repeat: int = 1  # query heads that share one key/value head
    gated: bool = True  # RMSNorm and SiLU gate (Moshi); False: LayerNorm, exact GELU and layer scale (Mimi)

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def kv_heads(self) -> int:
        return self.heads // self.kv_repeat


@dataclass(frozen=True)
class MimiConfig:
    """The codec: SEANet, two transformers, a split residual vector quantizer."""

    filters: int = 64
    width: int = 512
    ratios: tuple[int, ...] = (8, 6, 5, 4)  # upsampling factors of the decoder; the encoder uses them reversed
    kernel: int = 7
    residual_kernel: int = 3
    last_kernel: int = 3
    compress: int = 2
    transformer: TransformerConfig = TransformerConfig(512, 8, 8, 2048, context=250, gated=False)
    codebook_width: int = 256
    codebook_size: int = 2048
    codebooks_in_file: int = 32
    codebooks: int = 8  # those in use


@dataclass(frozen=True)
class DepthConfig:
    """The depth transformer. `schedule[k]` names the weight set of codebook k; low_rank is the width of its
    embedding tables, if lower; normed: a LayerNorm of each codebook's own before its head (Hibiki Zero).
    """

    transformer: TransformerConfig = TransformerConfig(1024, 16, 6, 2816, rope=None)
    schedule: tuple[int, ...] = tuple(range(8))
    low_rank: int | None = None
    normed: bool = False


@dataclass(frozen=True)
class ConditionerConfig:
    """One `lut` conditioner fused by sum: a table of n_bins + 1 rows, projected to the width of the model."""

    n_bins: int
    dim: int
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class LmConfig:
    """The temporal transformer, the depth transformer and the streams between them."""

    transformer: TransformerConfig = TransformerConfig(4096, 32, 32, 11264, context=3000)
    depth: DepthConfig = DepthConfig()
    text_card: int = 32_000
    text_card_out: int = 32_000
    card: int = 2048
    n_q: int = 16
    dep_q: int = 8
    delays: tuple[int, ...] = (0, 0, *[1] * 7, 0, *[1] * 7)  # text first
    conditioners: dict[str, ConditionerConfig] = field(default_factory=dict)
    ends: bool = False  # Hibiki: EOS tells that the translation is complete; on the way it acts as PAD

    @property
    def streams(self) -> int:
        return 1 + self.n_q

    @property
    def user_q(self) -> int:
        """Codebooks that come from outside."""
        return self.n_q - self.dep_q

    @property
    def max_delay(self) -> int:
        return max(self.delays)

    @property
    def initial(self) -> tuple[int, ...]:
        """Per stream, the token that stands where nothing is valid yet."""
        return (self.text_card, *[self.card] * self.n_q)


@dataclass(frozen=True)
class MoshiConfig:
    """All of one checkpoint. `name` is its model type; `sampling` holds what the file's lm_gen_config asks for."""

    lm: LmConfig = LmConfig()
    mimi: MimiConfig = MimiConfig()
    name: str = "moshi"
    sampling: dict[str, Any] = field(default_factory=dict)
