"""What is known, what is on this disk, and what one model is made of, as plain data."""

from __future__ import annotations

from typing import Any

from ..checkpoints import hub
from ..checkpoints.address import Address
from ..checkpoints.header import Header, read_header
from ..checkpoints.known import KNOWN
from ..checkpoints.locate import Located, locate, on_disk
from ..checkpoints.recognise import recognise
from ..frame import MoshiError

PART, WHOLE = "in part", "here"


def inventory() -> list[dict[str, Any]]:
    """The embedded model, the known models, then other models of ours in the Hugging Face cache."""
    rows = [_embedded()]
    for known in KNOWN:
        rows.append(
            {
                "model": known.alias,
                "repository": known.repo,
                "note": known.note,
                "kind": known.kind,
                "gigabytes": known.gigabytes,
                "bits": known.bits,
                "licence": known.licence,
                "where": _where(known.alias, Address(known.repo, None, known.weights)),
            }
        )
    named = {known.repo for known in KNOWN}
    return rows + [row for repo in hub.repositories() if repo not in named and (row := _other(repo))]


def _embedded() -> dict[str, Any]:
    located = locate(None)
    size = sum(path.stat().st_size for path in located.folder.iterdir()) / 1e9
    row = {"model": "(none)", "repository": None, "note": "demonstration", "kind": "moshi"}
    return row | {"gigabytes": size, "bits": None, "licence": "MIT", "where": WHOLE}


def _where(source: str, address: Address) -> str | None:
    """Whether a model is here, whole or in part."""
    if on_disk(source):
        return WHOLE
    folder = hub.snapshot(address)
    return PART if folder and (folder / str(address.file)).exists() else None


def _other(repo: str) -> dict[str, Any] | None:
    """A repository of the cache, if it is one of our kinds: the cache is full of other programs' models."""
    try:
        located = locate(repo, offline=True)
        files = located.files()
        header = read_header(located.file(files.weights[0]))
        if files.family != "helium" and recognise(header.tensors, repo) in ("unknown", "Helium"):
            return None
    except MoshiError:
        return None
    row = {"model": repo, "repository": repo, "note": "by its Hub id", "kind": files.family}
    return row | {"gigabytes": header.nbytes / 1e9, "bits": None, "licence": "?", "where": WHOLE}


def describe(source: str | None, *, offline: bool = False) -> dict[str, Any]:
    """What `models show` says: everything of a Moshi; format, parameters and size of what else there is."""
    located = locate(source, offline=offline)
    files = located.files()
    headers = [read_header(located.file(name)) for name in files.weights]
    kind = recognise([name for header in headers for name in header.tensors], located.label)
    if files.family in ("moshi", "hf-moshi") and kind not in ("Mimi", "D1", "LoRA", "Helium"):
        from ..checkpoints.load import load
        from .facts import facts

        return {"format": kind} | facts(load(source, lazy=True, offline=offline))
    return {"format": kind} | _plain(located, headers)


def _plain(located: Located, headers: list[Header]) -> dict[str, Any]:
    infos = {name: info for header in headers for name, info in header.tensors.items()}
    nbytes = sum(info.nbytes for info in infos.values())
    packed = any(name.endswith(".scales") for name in infos)  # how many values they hold, shapes alone do not tell
    return {
        "model": located.label,
        "weights": ", ".join(str(header.path) for header in headers),
        "tensors": len(infos),
        "dtypes": ", ".join(sorted({info.dtype for info in infos.values()})),
        "parameters": None if packed else sum(info.size for info in infos.values()),
        "bytes": nbytes,
    }
