"""Reading one JSON object key by key: every value typed and bounded, every key accounted for."""

from __future__ import annotations

import json
import warnings
from typing import Any

from ..frame import MoshiError

_MISSING = object()


class Fields:
    """Typed and bounded reading of one JSON object; remembers what was asked for."""

    def __init__(self, raw: Any, where: str) -> None:
        if not isinstance(raw, dict):
            raise MoshiError(f"{where} must be a JSON object")
        self._raw, self._where, self._seen = raw, where, set[str]()

    def get(self, key: str, default: Any = None) -> Any:
        self._seen.add(key)
        return self._raw.get(key, default)

    def fail(self, key: str, what: str) -> MoshiError:
        return MoshiError(f"{self._where}: {key} {what}, not {json.dumps(self._raw.get(key))[:60]}")

    def integer(self, key: str, default: int, low: int = 1, high: int = 1 << 17, null: bool = False) -> int:
        """null: whether JSON's null, too, stands for the default."""
        value = self.get(key, default)
        if null and value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(key, f"must be a whole number from {low} to {high}")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.fail(key, f"must be a number from {low:g} to {high:g}")
        return float(value)

    def integers(self, key: str, default: tuple[int, ...], high: int, length: int | None = None) -> tuple[int, ...]:
        value = self.get(key, default)
        good = isinstance(value, list | tuple) and all(type(item) is int and 0 <= item <= high for item in value)
        if not good or (length is not None and len(value) != length):
            count = "" if length is None else f"{length} "
            raise self.fail(key, f"must be a list of {count}whole numbers from 0 to {high}")
        return tuple(value)

    def heads(self, key: str, width: int, default: int) -> int:
        """Attention heads that divide the width into even sizes."""
        heads = self.integer(key, default, high=1024)
        if width % heads or width // heads % 2:
            raise self.fail(key, f"must divide the width {width} into heads of even size")
        return heads

    def fixed(self, table: dict[str, tuple[Any, ...]]) -> None:
        for key, allowed in table.items():
            value = self.get(key, _MISSING)
            if value is not _MISSING and not any(value == item and type(value) is type(item) for item in allowed):
                raise self.fail(key, f"is supported as {' or '.join(json.dumps(item) for item in allowed)} only")

    def rest(self, ignored: set[str]) -> None:
        for key in sorted(self._raw.keys() - self._seen - ignored):
            warnings.warn(f"{self._where}: the key {key!r} is unknown and was ignored", stacklevel=2)
