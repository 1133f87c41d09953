"""Stage `further`: a finished tiny Moshi learns to hear more voices, without a GPU and without a new decoder.

The encoder learns on, from speakers that speakers.py makes up and whose spectra change in every step (spectra.py); its
quantizer, what the codes say of a spectrum, and how it hears Moshi's own voice are held. So codes keep their meaning:
decoder and answers stay, and the language model goes on from its shipped weights, on new scenes, half of them heard as
if others had spoken. What ships is the mean of the weights before and after. All of it lies in WORK/further, the work
folder of later stages, a second `further` among them.
"""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import codes, listen, lm, scenes, threshold
from .codec import Heads
from .device import Optimizer, default_device
from .shapes import new_mimi
from .spectra import changed

NEW_KEPT, NEW_SCENES = 32, 36  # shards
ENCODER_STEPS, ENCODER_RATE, NEW_SHARE = 2800, 1e-3, 0.55
LM_STEPS, LM_RATE, LM_DEPTH_FRAMES = 2600, 5e-4, 128  # the depth transformer knows its answers already
USERS_MEL = 0.1  # users are to be understood, not to be heard again
HEAD_STEPS, HEAD_RATE = 250, 3e-3
OTHERS = 0.5  # share of scenes whose spectra are changed
THRESHOLD = 1.25  # nats: it refuses some more questions, and with them what is no question of the script
_WEIGHTS = (1, 0.5, 1, 1, 0.25, 0.25, 3)  # of the encoder's losses
_LINKED = ("clips.i16", "clips.json", "readings.json", "answers.json", "answers.npz", "own.npz", "decoder.pt")


def improve(work: Path, encoder_steps: int = ENCODER_STEPS, lm_steps: int = LM_STEPS) -> None:
    """Everything, in WORK/further; resumes."""
    folder = work / "further"
    folder.mkdir(exist_ok=True)
    old = sorted(work.glob("kept-???.npz"))
    for path in (*(work / name for name in _LINKED), *old):
        if not (folder / path.name).is_symlink():
            (folder / path.name).symlink_to(os.path.relpath(path, folder))
    listen.keep(folder, _new(work, "kept", NEW_KEPT))
    Listener(work, folder, encoder_steps).run()
    scenes.make(folder, _new(work, "codes", NEW_SCENES))
    codes.make_monitor(folder)
    codes.encode_scenes(folder, OTHERS)
    lm.DEPTH_FRAMES = LM_DEPTH_FRAMES
    trainer = lm.Trainer(folder, lm_steps, default_device(), seed=7, peak=LM_RATE)
    if trainer.step == 0:
        _start(trainer, torch.load(work / "lm.pt", map_location=trainer.device)["shipped"])
    trainer.run(save_every=400)
    _meet(work, folder)
    threshold.shift(folder, THRESHOLD)


class Listener:
    """The encoder of `work` learning on in `folder`; resumes from listener.pt and leaves encoder.pt."""

    def __init__(self, work: Path, folder: Path, steps: int, seed: int = 5) -> None:
        torch.manual_seed(seed)
        self.folder, self.steps, self.step = folder, steps, 0
        self.kept = listen.Kept(folder, seed)
        self.kept.old = len(self.kept.labels) * len(list(work.glob("kept-???.npz"))) // self.kept.files
        self.kept.new_share = NEW_SHARE
        saved = torch.load(work / "encoder.pt")
        self.mimi, self.heads = new_mimi(), Heads(int(self.kept.labels.max()))
        self.mimi.load_state_dict(saved["mimi"])
        self.heads.load_state_dict(saved["heads"])
        self.before = copy.deepcopy(self.mimi).eval()
        for layer in self.mimi.encoder_transformer.transformer.layers:
            layer.self_attn.register_forward_hook(lambda module, _, out: F.dropout(out, 0.08, module.training))
        self.mimi.train()
        for module in self.mimi.quantizer.modules():
            if hasattr(module, "cluster_usage"):  # a codebook: in training it would move
                module.eval()
        learning = (self.mimi.encoder.model[-1], self.mimi.encoder_transformer, self.mimi.downsample, self.heads)
        self.heads.mel.requires_grad_(False)
        parameters = [p for part in learning for p in part.parameters() if p.requires_grad]
        self.optimizer = Optimizer(parameters, ENCODER_RATE, (0.9, 0.98), decay=1e-2, clip=1.0)
        if (folder / "listener.pt").exists():
            state = torch.load(folder / "listener.pt")
            self.step = state["step"]
            self.mimi.load_state_dict(state["mimi"])
            self.heads.load_state_dict(state["heads"])
            self.optimizer.load(state["optimizer"])

    def run(self) -> None:
        sums, begun = np.zeros(len(_WEIGHTS)), time.time()
        while self.step < self.steps:
            self.step += 1
            self.optimizer.schedule(self.step, self.steps, warm=100)
            losses = self._losses()
            self.optimizer.step(torch.stack([w * loss for w, loss in zip(_WEIGHTS, losses, strict=True)]).sum())
            sums += [loss.item() for loss in losses]
            if self.step % 100 == 0:
                shown = " ".join(f"{value:.3f}" for value in sums / 100)
                print(f"further {self.step}/{self.steps} {time.time() - begun:.0f} s: {shown}", flush=True)
                sums[:] = 0
            if self.step % 300 == 0 or self.step == self.steps:
                self._save()

    def _losses(self) -> list[Tensor]:
        """Those of listen.py, and how far the latents of Moshi's own voice have moved."""
        batch, users = self.kept.batch(), listen.BATCH_USERS
        with torch.no_grad():
            goal = listen.latents(self.before, batch[0][users:])
            seen = changed(batch[0][:users])
        heard = listen.latents(self.mimi, torch.cat([seen, batch[0][users:]]))
        moved = (heard[users:] - goal).square().mean() / goal.var()
        losses = listen.listening_losses(self.mimi, self.heads, heard, batch, users_mel=USERS_MEL)
        return [*losses, moved]

    def _save(self) -> None:
        """listener.pt, and encoder.pt with the running mean of the weights."""
        self._write("listener.pt", {"optimizer": self.optimizer.state()})
        self.optimizer.swap()
        self._write("encoder.pt", {})
        self.optimizer.swap()

    def _write(self, name: str, more: dict[str, object]) -> None:
        kept = {"mimi": self.mimi.state_dict(), "heads": self.heads.state_dict(), "step": self.step, **more}
        torch.save(kept, self.folder / "listener.tmp")
        (self.folder / "listener.tmp").rename(self.folder / name)


def _meet(work: Path, folder: Path) -> None:
    """The mean of the weights before and after, once: on speakers never heard it is better than either."""
    for name, part in (("encoder.pt", "mimi"), ("lm.pt", "shipped")):
        before, after = (torch.load(place / name, map_location="cpu") for place in (work, folder))
        if "met" in after:
            continue
        for key, value in after[part].items():
            if value.is_floating_point():
                value.lerp_(before[part][key], 0.5)
        torch.save({**after, "met": True}, folder / "met.tmp")
        (folder / "met.tmp").rename(folder / name)
    (folder / "monitor.npz").unlink(missing_ok=True)
    codes.make_monitor(folder)


def _new(work: Path, name: str, count: int) -> range:
    """Numbers that no shard of `work` has, and with them new seeds."""
    last = max(int(path.stem[-3:]) for path in work.glob(f"{name}-???.npz"))
    return range(last + 1, last + 1 + count)


def _start(trainer: lm.Trainer, shipped: dict[str, Tensor]) -> None:
    """Shipped weights, and new auxiliary heads, which learn alone before everything does."""
    trainer.lm.load_state_dict(shipped)
    trainer.lm.requires_grad_(False)
    trainer.optimizer.rate.fill_(HEAD_RATE)
    trainer.optimizer.keep.fill_(1.0)
    for _ in range(HEAD_STEPS):
        trainer.update()
    trainer.sums.zero_()
    trainer.lm.requires_grad_(True)
