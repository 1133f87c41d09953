"""What a download says, and whom it asks."""

from __future__ import annotations

import pytest

from moshi_mlx.checkpoints import transfer
from moshi_mlx.checkpoints.meter import Meter, duration


def test_meter_tells_speed_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Opaque minutes of a first start look like a hang."""
    meter = Meter()
    meter("model.safetensors", 0, 4_000_000_000)
    assert meter.line(1_000_000_000, 4_000_000_000, 20.0) == (
        "model.safetensors: 1,000 of 4,000 MB · 50.0 MB/s · 1 min 0 s left"
    )
    assert [duration(s) for s in (3.4, 61, 7325)] == ["3 s", "1 min 1 s", "2 h 2 min"]
    meter("model.safetensors", 4_000_000_000, 4_000_000_000)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_endpoint_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty HF_ENDPOINT means the Hub, not the address ''."""
    monkeypatch.setenv("HF_ENDPOINT", "")
    assert transfer.endpoint() is None
