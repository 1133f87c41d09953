"""A conversation that is saved and taken up again, in another process too; and files that are none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hf_kit import save
from quantization_kit import make_source
from session_kit import talk
from test_lora import adapters

import moshi_mlx
from moshi_mlx import MoshiError, Sampling, Session
from moshi_mlx.checkpoints.load import Moshi


def test_restored_in_a_new_process(moshi: Moshi, pcm: np.ndarray, tmp_path: Path) -> None:
    """A state kept outside the saved tree (a key, a position, a half-read character) only shows in a new process."""
    session = Session(moshi, seed=3, sampling=Sampling(repetition_penalty=1.3, repetition_context=5))
    talk(session, pcm[:11])
    session.save(tmp_path / "talk.session")
    want = talk(session, pcm[11:])
    np.save(tmp_path / "pcm.npy", pcm[11:])
    script = """
import sys, pickle, numpy as np, moshi_mlx
folder, model = sys.argv[1:]
session = moshi_mlx.Session.restore(moshi_mlx.load(model), folder + "/talk.session")
replies = [session.step(frame) for frame in np.load(folder + "/pcm.npy")]
np.savez(folder + "/said.npz", pcm=[r.pcm for r in replies], codes=[r.codes for r in replies],
         tokens=[r.text_token for r in replies], frames=[r.frame for r in replies], text=[r.text for r in replies])
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path), str(moshi.located.folder)], check=True)
    said = np.load(tmp_path / "said.npz")
    columns = said["frames"], map(bytes, said["pcm"]), said["text"], said["tokens"], map(tuple, said["codes"])
    got = list(zip(*columns, strict=True))
    assert got == [row[:5] for row in want]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_half_a_character_survives_saving(load: Callable, tmp_path: Path) -> None:
    """Bytes that wait for the rest of their character are state too."""
    session = Session(load("moshi"), seed=0)
    session.state.pending = b"\xc3"
    session.save(tmp_path / "a.session")
    assert Session.restore(session.moshi, tmp_path / "a.session").state.pending == b"\xc3"


def test_restore_refuses_what_is_not_its_own(moshi: Moshi, load: Callable, pcm: np.ndarray, tmp_path: Path) -> None:
    """Session files are untrusted: another model's, a cut one, a lying one must be one line, not a crash later."""
    session = Session(moshi, seed=1)
    talk(session, pcm[:2])
    good = tmp_path / "good.session"
    session.save(good)
    Session.restore(moshi, good)
    cut = tmp_path / "cut.session"
    cut.write_bytes(good.read_bytes()[:-100])
    arrays, metadata = mx.load(str(good), format="safetensors", return_metadata=True)
    lying = dict(arrays)
    tokens = next(name for name, value in arrays.items() if value.shape == session.state.lm.columns.tokens.shape)
    lying[tokens] = mx.full(arrays[tokens].shape, 10**6, arrays[tokens].dtype)
    mx.save_safetensors(str(tmp_path / "lying"), lying, metadata)
    head = json.loads(metadata["moshi_session"])
    plain = head["plain"]
    heads = [head | {"plain": plain[:-1]}, head | {"plain": ["x"] * len(plain)}, head | {"sampling": 3}, {}, []]
    heads += [head | {"seed": seed} for seed in (-1, 1 << 64, float("inf"), "7", True)]
    heads += [
        head | {"sampling": head["sampling"] | wrong}
        for wrong in ({"audio_top_k": 2.5}, {"repetition_penalty": 1.1, "repetition_context": 10**12})
    ]
    unsaid = plain.index(session.state.unsaid)
    heads.append(head | {"plain": [*plain[:unsaid], "\x1b]0;title\x07", *plain[unsaid + 1 :]]})
    for index, text in enumerate([*map(json.dumps, heads), "[" * 100_000]):
        mx.save_safetensors(str(tmp_path / f"head{index}"), dict(arrays), {"moshi_session": text})
    files = [cut, tmp_path / "lying.safetensors", *sorted(tmp_path.glob("head*.safetensors"))]
    assert len(files) == 2 + len(heads) + 1
    for path in [*files, tmp_path / "none", moshi.weights]:
        with pytest.raises(MoshiError) as caught:
            Session.restore(moshi, path)
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)
    with pytest.raises(MoshiError):
        Session.restore(load("own"), good)


def test_restored_keys_in_8_bits_are_this_sessions_own(pcm: np.ndarray, tmp_path: Path) -> None:
    """A file that names another group or other bits was taken, and failed inside MLX in the first frame."""
    moshi = moshi_mlx.load(make_source(tmp_path / "model"))
    session = Session(moshi, seed=1, kv_bits=8)
    talk(session, pcm[:2])
    session.save(tmp_path / "good.session")
    assert talk(Session.restore(moshi, tmp_path / "good.session"), pcm[2:5]) == talk(session, pcm[2:5])
    arrays, metadata = mx.load(str(tmp_path / "good.session"), format="safetensors", return_metadata=True)
    head = json.loads(metadata["moshi_session"])
    for value in (64, 8):  # group and bits
        plain = list(head["plain"])
        plain[plain.index(value)] = 7
        mx.save_safetensors(str(tmp_path / "lying"), arrays, {"moshi_session": json.dumps(head | {"plain": plain})})
        with pytest.raises(MoshiError, match="not a session of this model"):
            Session.restore(moshi, tmp_path / "lying.safetensors")


def test_saving_where_one_may_not(moshi: Moshi, tmp_path: Path) -> None:
    """Nothing half-written stays behind."""
    with pytest.raises(MoshiError, match="cannot be saved"):
        Session(moshi, seed=1).save(tmp_path / "none" / "a.session")


def test_a_model_that_differs_in_its_weights_alone_is_another_model(
    moshi: Moshi, writable: Callable, pcm: np.ndarray, tmp_path: Path
) -> None:
    """Models were told apart by configuration and file size: a LoRA merged into the base, or weights trained further,
    took up a conversation whose keys and values came from other weights."""
    session = Session(moshi, seed=1)
    session.save(tmp_path / "a.session")
    folder = writable("moshi")
    assert talk(Session.restore(moshi_mlx.load(folder), tmp_path / "a.session"), pcm[:3]) == talk(session, pcm[:3])
    lora, _ = adapters("moshi", "split")
    save(folder / "lora.safetensors", {name: value for name, value in lora.items() if "lora_" in name})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"lora": True, "lora_rank": 3, "lora_scaling": 0.01}))
    with pytest.raises(MoshiError, match="not a session of this model"):
        Session.restore(moshi_mlx.load(folder), tmp_path / "a.session")


@pytest.mark.parametrize("seed", [-1, 1 << 64, 1.5, "7"])
def test_a_seed_that_is_none_is_told(moshi: Moshi, seed: object) -> None:
    """MLX's own complaint is three lines about argument types, and came as a traceback."""
    with pytest.raises(MoshiError, match=r"seed must be a whole number"):
        Session(moshi, seed=seed)  # type: ignore[arg-type]
