"""The shapes of the published models (spec, moshi.md section 8), by their aliases without the bits."""

from __future__ import annotations

from .config import ConditionerConfig, DepthConfig, LmConfig, TransformerConfig

_QUALITY = {
    "description": ConditionerConfig(31, 16, ("very_bad", "bad", "neutral", "good", "very_good")),
}
MOSHI = LmConfig()
HIBIKI_1B = LmConfig(
    TransformerConfig(2048, 16, 16, 5632, context=500, max_period=100_000.0),
    text_card=48_000,
    text_card_out=48_000,
    delays=(0, *(0, *[2] * 7) * 2),
    conditioners=_QUALITY,
    ends=True,
)
HIBIKI_2B = LmConfig(
    TransformerConfig(2560, 20, 24, 7040, context=1500, max_period=100_000.0),
    DepthConfig(TransformerConfig(1024, 16, 4, 2048, rope=None), schedule=(*range(8), *[8] * 8), low_rank=128),
    text_card=48_000,
    text_card_out=48_000,
    n_q=32,
    dep_q=16,
    delays=(0, *(0, *[2] * 15) * 2),
    conditioners=_QUALITY,
    ends=True,
)
PUBLISHED = {"moshiko": MOSHI, "moshika": MOSHI, "hibiki-1b": HIBIKI_1B, "hibiki-2b": HIBIKI_2B}
