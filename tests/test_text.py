"""Text tokens → text, with the toy SentencePiece models of tests/fixtures."""

from __future__ import annotations

import pytest
from conftest import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

from moshi_mlx.checkpoints.tokenizer import CONTROL, Tokenizer
from moshi_mlx.cli.console import clean
from moshi_mlx.frame import MoshiError

WRITTEN = st.characters(categories=["L", "M", "N", "P", "S"], exclude_characters="▁")
TOKENIZER = Tokenizer(FIXTURES / "bytes.model")


def spell(tokens: list[int]) -> str:
    """What a conversation would show for these tokens, one by one."""
    text, pending = "", b""
    for token in tokens:
        more, pending = TOKENIZER.add(token, pending)
        text += more
    return text


@pytest.mark.parametrize("text", ["hello there how are you", "naïve café", "🙂 ok", "a🙂é漢字b", "tell me a story"])
def test_token_by_token_is_the_text(text: str) -> None:
    """Decoding single ids loses the space of '▁the', and shows '<0xF0>' for a byte."""
    assert spell(TOKENIZER.model.encode(text)) == " " + text


@given(st.text(WRITTEN, min_size=1, max_size=20))
def test_any_text(text: str) -> None:
    """Characters of one to four bytes, cut anywhere."""
    assert spell(TOKENIZER.model.encode(text)) == " " + text


def test_control_is_never_shown() -> None:
    """Id 0 printed as '<unk>' or '⁇' between all words: it is EPAD."""
    words = TOKENIZER.model.encode("hello there")
    mixed = [token for word in words for token in (0, 3, word, 1, 2, 3)]
    assert spell(mixed) == " hello there"
    assert spell([-1, len(TOKENIZER), 10**6]) == ""


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=40))
def test_any_tokens(tokens: list[int]) -> None:
    """A model samples bytes in any order: never an exception, never more than one character waits."""
    text, pending = "", b""
    for token in tokens:
        more, pending = TOKENIZER.add(token, pending)
        text += more
        assert len(pending) < 4
    assert "▁" not in text
    assert "<0x" not in text


def test_a_character_never_waits_for_a_pause() -> None:
    """Padding in the middle of a character's bytes neither ends nor drops it."""
    first, *rest = [token for token in TOKENIZER.model.encode("é") if token >= CONTROL][-2:]
    assert spell([first, 3, 3, 0, *rest]) == "é"


def test_no_tokenizer() -> None:
    """The wrong file is named, not a traceback of C++."""
    with pytest.raises(MoshiError, match=r"mimi\.json"):
        Tokenizer(FIXTURES / "mimi" / "mimi.json")


def test_white_space_parts_words_and_helium_gets_it_as_it_is() -> None:
    """A line break was left out, and the words on both sides of it ran together."""
    tokens = [TOKENIZER.model.piece_to_id(f"<0x{byte:02X}>") for byte in (0x61, 0x0A, 0x62, 0x1B, 0x09)]
    assert spell(tokens) == "a b "
    assert "".join(TOKENIZER.join(token, b"")[0] for token in tokens) == "a\nb\x1b\t"
    assert clean("a\n\tb\x1b[2J\u202e", keep="\n\t") == "a\n\tb[2J"
