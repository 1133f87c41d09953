"""One training step on whatever there is: plainly on a CPU, recorded once as a CUDA graph on a GPU.

Models this small leave a GPU waiting for Python; a recorded step runs many times faster. What is recorded must have
fixed shapes, draw from the device's own generator and never read a value back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def halves(device: torch.device) -> torch.autocast:
    """bfloat16 where the hardware multiplies it; a CPU without AVX-512 takes eight times as long with it."""
    fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast, cache_enabled=False)


def recorded(step: Callable[[], None], device: torch.device, warm_up: int = 5) -> Callable[[], None]:
    """`step` itself on a CPU. On a GPU it is run `warm_up` times, recorded, and its replay returned."""
    if device.type != "cuda":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


class Optimizer:
    """AdamW with a cosine rate, clipped gradients and a running mean of the weights, all of it recordable."""

    def __init__(
        self, parameters: list[torch.nn.Parameter], peak: float, betas: tuple[float, float], decay: float, clip: float
    ) -> None:
        self.parameters, self.peak, self.clip = parameters, peak, clip
        device = parameters[0].device
        self.rate = torch.zeros((), device=device)
        self.adam = torch.optim.AdamW(
            parameters, lr=self.rate, betas=betas, weight_decay=decay, fused=True, capturable=device.type == "cuda"
        )
        self.mean = [parameter.detach().clone() for parameter in parameters]
        self.keep = torch.zeros((), device=device)  # weight of the new in the running mean

    def schedule(self, step: int, steps: int, warm: int, floor: float = 0.02) -> None:
        """Set the rate for step 1 … steps, and how long the running mean remembers (1/8 of the past, 1000 at most)."""
        share = floor + (1 - floor) * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item())
        self.rate.fill_(self.peak * min(1.0, step / warm) * share)
        self.keep.fill_(1 / min(1000.0, 1 + step / 8))

    def step(self, loss: Tensor) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=True)
        self.adam.step()
        with torch.no_grad():
            for mean, parameter in zip(self.mean, self.parameters, strict=True):
                mean.lerp_(parameter, self.keep)

    def swap(self) -> None:
        """Exchange the weights with their running mean (and back)."""
        with torch.no_grad():
            for mean, parameter in zip(self.mean, self.parameters, strict=True):
                kept = parameter.clone()
                parameter.copy_(mean)
                mean.copy_(kept)

    def state(self) -> dict[str, object]:
        return {"adam": self.adam.state_dict(), "mean": self.mean}

    def load(self, state: dict[str, object]) -> None:
        self.adam.load_state_dict(state["adam"])
        for group in self.adam.param_groups:
            group["lr"] = self.rate
        for mean, kept in zip(self.mean, state["mean"], strict=True):
            mean.copy_(kept)
