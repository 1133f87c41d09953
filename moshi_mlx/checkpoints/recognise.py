"""What the tensors of a file are, told by their names (spec, checkpoints.md section 9)."""

from __future__ import annotations

from collections.abc import Collection

from ..frame import MoshiError
from .hf_names import is_hf_mimi, is_hf_moshi
from .lora import is_lora
from .names import is_format_a

# A piece of a name that only this family has → what it is and what to do instead.
_UNSUPPORTED = (
    ("image_prefix.", "a MoshiVis model, which sees images"),
    ("img_embedder.", "a MoshiVis model, which sees images"),
    ("cross_attention.", "a model with cross attention (text to speech, or images)"),
    (".weight_scb", "an int8 file for PyTorch (take the q8 file for MLX)"),
    ("extra_heads.", "a speech-to-text model with extra heads"),
    ("speaker_wavs", "a voice of a text-to-speech model"),
)


def recognise(tensors: Collection[str], where: str) -> str:
    """The format of a file from the names in it: "A", "A, quantized", "B", "C", "D1", "D2", "LoRA", "Helium", "Mimi".

    "unknown" for anything else; MoshiError, which begins with `where`, for what is recognised but not supported.
    """
    names = set(tensors)
    for piece, what in _UNSUPPORTED:
        if any(piece in name for name in names):
            raise MoshiError(f"{where}: this is {what}; it is not supported")
    if is_lora(names):
        return "LoRA"
    if is_hf_moshi(names):
        return "D2"
    if is_hf_mimi(names):
        return "D1"
    if "encoder.model.0.conv.conv.weight" in names:
        return "Mimi"
    if "model.norm.weight" in names or ("out_norm.weight" in names and "audio_embs.0.weight" not in names):
        return "Helium"
    if is_format_a(names):
        return "A, quantized" if "text_linear.scales" in names else "A"
    if "emb.0.weight" in names and "depformer.0.linear_in.weight" in names:
        return "C"
    if "emb.0.weight" in names and "depformer_in.0.weight" in names:
        return "B"
    if "emb.0.weight" in names and "out_norm.alpha" in names:
        raise MoshiError(f"{where}: this is a model without a depth transformer (speech to text); it is not supported")
    return "unknown"
