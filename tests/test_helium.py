"""Helium in both layouts, quantized or not, against mlx-lm's model (and transformers', where torch is installed)."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from moshi_mlx.checkpoints.helium import Helium, load_helium
from moshi_mlx.checkpoints.locate import locate
from moshi_mlx.cli.main import main
from moshi_mlx.frame import MoshiError

FIXTURES = Path(__file__).parent / "fixtures"
CONFIG = {
    "model_type": "helium",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "rms_norm_eps": 1e-8,
    "vocab_size": 40,
    "rope_theta": 100000.0,
    "max_position_embeddings": 64,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
}
IDS = [1, 7, 30, 5, 5, 38, 12]


def reference(group: int = 0) -> Any:
    """mlx-lm's model with random weights of which every part shows in the logits."""
    from mlx_lm.models.helium import Model, ModelArgs

    model = Model(ModelArgs.from_dict(CONFIG))
    rng = np.random.default_rng(0)
    weights = []
    for name, value in tree_flatten(model.parameters()):
        scale, base = (0.2, 1.0) if "norm" in name else (2.0 / value.shape[-1] ** 0.5, 0.0)
        weights.append((name, mx.array(base + scale * rng.standard_normal(value.shape).astype(np.float32))))
    model.update(tree_unflatten(weights))
    if group:
        nn.quantize(model, group, 4)
    return model


def to_format_a(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
    """The table of the spec, written out the other way round."""
    result: dict[str, mx.array] = {}
    for leaf in ("weight", "scales", "biases"):
        for ours, theirs in (
            ("text_emb", "model.embed_tokens"),
            ("out_norm", "model.norm"),
            ("text_linear", "lm_head"),
        ):
            if f"{theirs}.{leaf}" in tensors:
                result[f"{ours}.{leaf}"] = tensors[f"{theirs}.{leaf}"]
        for i in range(CONFIG["num_hidden_layers"]):  # type: ignore[call-overload]
            for ours, theirs in (
                ("self_attn.in_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
                ("self_attn.out_proj", ("self_attn.o_proj",)),
                ("gating.linear_in", ("mlp.gate_proj", "mlp.up_proj")),
                ("gating.linear_out", ("mlp.down_proj",)),
                ("norm1", ("input_layernorm",)),
                ("norm2", ("post_attention_layernorm",)),
            ):
                parts = [tensors.get(f"model.layers.{i}.{part}.{leaf}") for part in theirs]
                if parts[0] is not None:
                    result[f"transformer.layers.{i}.{ours}.{leaf}"] = mx.concatenate(parts)  # type: ignore[arg-type]
    return result


def write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3} | {chr(93 + i): i for i in range(4, 40)}
    tokenizer = Tokenizer(models.WordLevel(letters, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(path))


def write(folder: Path, layout: str, model: Any) -> Path:
    folder.mkdir()
    tensors = dict(tree_flatten(model.parameters()))
    if layout == "hf":
        (folder / "config.json").write_text(json.dumps(CONFIG))
        write_tokenizer(folder / "tokenizer.json")
        mx.save_safetensors(str(folder / "model.safetensors"), tensors)
        return folder
    (folder / "config.json").write_text('{"num_heads": 4, "context": 64}')
    (folder / "tokenizer.model").write_bytes((FIXTURES / "tokenizer.model").read_bytes())
    mx.save_safetensors(str(folder / "helium-tiny.safetensors"), to_format_a(tensors))
    return folder / "helium-tiny.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    home = tmp_path_factory.mktemp("helium")
    return {
        (layout, group): write(home / f"{layout}{group}", layout, reference(group))
        for layout in ("hf", "kyutai")
        for group in (0, 32, 64)
    }


def logits(helium: Helium) -> np.ndarray:
    return np.array(helium.model(mx.array([IDS])))


@pytest.mark.parametrize("layout", ["hf", "kyutai"])
@pytest.mark.parametrize("group", [0, 32, 64])
def test_logits_are_those_of_mlx_lm(folders: dict[tuple[str, int], Path], layout: str, group: int) -> None:
    """Swapped gate and up, or rows permuted for a RoPE that is not halved here, load without an error."""
    want = np.array(reference(group)(mx.array([IDS])))
    assert np.array_equal(logits(load_helium(locate(folders[layout, group]))), want)
    assert want.std() > 0.5


def test_logits_are_those_of_transformers(folders: dict[tuple[str, int], Path]) -> None:
    """mlx-lm's model could itself be wrong: transformers is the second witness."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = folders["hf", 0]
    with torch.no_grad():
        model = transformers.HeliumForCausalLM.from_pretrained(folder).eval()
        want = model(torch.tensor([IDS])).logits.numpy()
    assert np.abs(logits(load_helium(locate(folders["kyutai", 0]))) - want).max() < 2e-5


def test_shards_and_tied_embeddings(tmp_path: Path, folders: dict[tuple[str, int], Path]) -> None:
    """Larger text models come in shards, smaller ones without a head of their own."""
    tensors = dict(tree_flatten(reference().parameters()))
    del tensors["lm_head.weight"]
    names = sorted(tensors)
    for i, part in enumerate((names[:5], names[5:]), 1):
        mx.save_safetensors(str(tmp_path / f"model-0000{i}-of-00002.safetensors"), {n: tensors[n] for n in part})
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"tie_word_embeddings": True}))
    write_tokenizer(tmp_path / "tokenizer.json")
    tied = reference()
    tied.lm_head.weight = tied.model.embed_tokens.weight
    assert np.abs(logits(load_helium(locate(tmp_path))) - np.array(tied(mx.array([IDS])))).max() < 1e-5
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MoshiError, match="00002-of-00002"):
        load_helium(locate(tmp_path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_attention_heads": 7}, "do not make a width"),
        ({"num_attention_heads": "4"}, "whole number"),
        ({"rope_theta": None}, "rope_theta"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"model_type": "llama"}, "not a text model"),
    ],
)
def test_damaged_configs(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """A wrong number of heads has the right shapes and writes nonsense."""
    folder = write(tmp_path / "x", "hf", reference())
    (folder / "config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(MoshiError, match=says):
        load_helium(locate(folder))


@pytest.mark.parametrize("layout", ["hf", "kyutai"])
def test_command(
    folders: dict[tuple[str, int], Path],
    layout: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A seed must replay, greedy must not need one, and stdout must hold the completion and nothing else."""
    model = str(folders[layout, 0])

    def text(*options: str) -> tuple[str, str]:
        assert main(["text", "--model", model, "--max-tokens", "12", *options]) == 0
        out = capsys.readouterr()
        return out.out, out.err

    out, err = text("abc", "--temperature", "0")
    assert out == text("abc", "--temperature", "0", "--seed", "5")[0]
    assert "first token after" in err
    assert "tokens/s (" in err
    drawn = [
        text("abc", "--seed", seed, "--top-k", "20", "--top-p", "0.95", "--temperature", "2")[0] for seed in "1213"
    ]
    assert drawn[0] == drawn[2]
    assert len(set(drawn)) > 1
    helium = load_helium(locate(model))
    ids = helium.encode("abc")
    want = np.argmax(np.array(helium.model(mx.array([ids])))[0, -1])
    decode = helium.decoder()
    assert int(want) in helium.stop or out.startswith(decode(int(want)))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"abc")))
    assert text("--temperature", "0")[0] == out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9")))
    assert main(["text", "--model", str(model)]) == 1
    assert "not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["abc", "--top-p", "0"], 2, "top-p"),
        (["abc", "--max-tokens", "0"], 2, "max-tokens"),
        (["abc", "--seed", "-1"], 2, "--seed"),
        (["abc", "--temperature", "nan"], 2, "temperature"),
        (["abc", "--temperature", "inf"], 2, "temperature"),
        (["abc" * 200], 1, "shorten it"),
    ],
)
def test_wrong_use(
    folders: dict[tuple[str, int], Path],
    options: list[str],
    status: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Past its longest text the model's positions mean nothing; it must refuse, not babble."""
    assert main(["text", "--model", str(folders["hf", 0]), *options]) == status
    assert says in capsys.readouterr().err


def test_stops_at_the_longest_text(folders: dict[tuple[str, int], Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a bound the completion would run past the positions the model was trained on."""
    assert main(["text", "--model", str(folders["hf", 0]), "a" * 60, "--max-tokens", "500", "--seed", "3"]) == 0
    said = re.search(r"\((\d+) tokens\)", capsys.readouterr().err)
    assert said
    assert int(said[1]) <= CONFIG["max_position_embeddings"] - 61  # type: ignore[operator]
