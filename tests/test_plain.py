"""The chat in lines, for pipes and screen readers."""

from __future__ import annotations

import io

import pytest
from chat_kit import numbers, view

from moshi_mlx.cli.plain import Plain
from moshi_mlx.cli.screen import KEYS
from moshi_mlx.cli.transcript import Transcript


def told(*steps: dict[str, object], keys: bool = True) -> list[str]:
    """The lines on stderr after these states of a conversation."""
    talk = io.StringIO()
    plain = Plain(io.StringIO(), talk, keys)
    for step in ({}, *steps):
        help_page = bool(step.pop("help", False))
        plain.show(view(now=numbers(frames=9, **step), help=help_page), Transcript())
    return talk.getvalue().splitlines()


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"muted": True}, "muted"),
        ({"state": "paused", "paused": True}, "paused"),
        ({"push_to_talk": True}, "space talks"),
        ({"state": "reopening"}, "reopening"),
    ],
)
def test_what_a_key_did_is_told(step: dict[str, object], says: str) -> None:
    """Who cannot see a screen pressed m and was not told whether the microphone was on."""
    lines = told(step, {})
    assert lines[0].startswith("Moshi listens")
    assert lines[1:] == [says, "live"]


def test_help_names_the_keys_once() -> None:
    """h did nothing in lines."""
    lines = told({"help": True}, {"help": True})
    assert "h names the keys" in lines[0]
    assert [line.split(":")[0] for line in lines[1:]] == [key for key, _, _ in KEYS]
    assert "keys" not in told(keys=False)[0]
