"""Text tokens → text. The tokenizer is a SentencePiece model; ids 0 to 3 are control (spec, moshi.md section 7)."""

from __future__ import annotations

import re
from pathlib import Path

from ..frame import MoshiError

CONTROL = 4  # ids below: EPAD, BOS, EOS, PAD
_BYTE = re.compile(r"^<0x([0-9A-F]{2})>$")


class Tokenizer:
    """Pieces by id."""

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        try:
            self.model = SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError, TypeError) as error:
            raise MoshiError(f"{path} is not a SentencePiece model; get it again ({type(error).__name__})") from None

    def __len__(self) -> int:
        return int(self.model.get_piece_size())

    def piece(self, token: int) -> str | bytes:
        """What a token adds to the text: "" for control, one byte for a byte piece, else text with its leading
        space.
        """
        if not CONTROL <= token < len(self) or self.model.is_control(token) or self.model.is_unknown(token):
            return ""
        piece = str(self.model.id_to_piece(token))
        if match := _BYTE.match(piece):
            return bytes([int(match[1], 16)])
        return piece.replace("▁", " ")

    def add(self, token: int, pending: bytes) -> tuple[str, bytes]:
        """The text that `token` completes, and the bytes of a character that still waits for its rest.

        White space of any kind becomes a blank, and what is not printable is left out: a model must not be able to
        steer a terminal.
        """
        text, pending = self.join(token, pending)
        shown = (" " if letter.isspace() else letter for letter in text if letter.isspace() or letter.isprintable())
        return "".join(shown), pending

    def join(self, token: int, pending: bytes) -> tuple[str, bytes]:
        """As `add`, every character as it is."""
        piece = self.piece(token)
        if isinstance(piece, bytes):
            pending += piece
            try:
                return pending.decode(), b""
            except UnicodeDecodeError as error:
                # Only a cut at the very end can still become a character.
                if error.reason == "unexpected end of data" and len(pending) < 4:
                    return "", pending
                return pending.decode(errors="replace"), b""
        if pending and piece:
            return pending.decode(errors="replace") + piece, b""
        return piece, pending
