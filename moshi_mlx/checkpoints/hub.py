"""Repositories of the Hugging Face Hub and their place in its cache on this disk.

`snapshot` looks for what is there, `listing` asks the Hub, `download` fetches. Transport, login and the layout of the
cache are those of huggingface_hub, so files that other programs fetched serve here and the reverse. What is ours: a cut
download goes on where it stopped, even in the next run; a file gets its name only after its hash is right; and only
safetensors, JSON and SentencePiece files are ever fetched. HF_ENDPOINT, HF_HUB_CACHE, HF_TOKEN and HF_HUB_OFFLINE are
honoured.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..frame import MoshiError
from .address import Address, is_plain
from .transfer import Progress, endpoint, one_line, stream

ALLOWED = (".safetensors", ".json", ".model")
SPARE = 256 << 20  # bytes of the disk that a download leaves free
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on the Hub. digest: SHA-256 of its content (64 digits), or for small files git's SHA-1 of it (40)."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository holds at one commit: its files of the kinds that are fetched, and the names of all."""

    address: Address
    commit: str
    files: Mapping[str, Remote]
    names: Sequence[str]


def cache() -> Path:
    """The folder of the Hugging Face cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _home(repo: str) -> Path:
    return cache() / f"models--{repo.replace('/', '--')}"


def snapshot(address: Address) -> Path | None:
    """The folder of this repository on this disk, if anything of it was fetched; no network."""
    home, commit = _home(address.repo), address.revision or "main"
    if not _COMMIT.fullmatch(commit):
        reference = home / "refs" / commit
        commit = reference.read_text().strip() if reference.is_file() else ""
    folder = home / "snapshots" / commit
    return folder if _COMMIT.fullmatch(commit) and folder.is_dir() else None


def repositories() -> list[str]:
    """Every model repository of which something is on this disk."""
    return sorted(path.name.removeprefix("models--").replace("--", "/", 1) for path in cache().glob("models--*--*"))


def known_absent(folder: Path, name: str) -> bool:
    """Whether the Hub was asked for this file of this snapshot before and had none."""
    return (folder.parent.parent / ".no_exist" / folder.name / name).is_file()


def listing(address: Address) -> Listing:
    """Asks the Hub what the repository holds at this revision."""
    from huggingface_hub import HfApi

    with one_line(address.repo, address.revision):
        info = HfApi(endpoint=endpoint()).model_info(
            address.repo, revision=address.revision, files_metadata=True, timeout=20
        )
        siblings = [item for item in info.siblings or () if is_plain(item.rfilename)]
        files = {
            item.rfilename: Remote(int(item.size or 0), str(item.lfs.sha256 if item.lfs else item.blob_id))
            for item in siblings
            if item.rfilename.endswith(ALLOWED)
        }
        # Commit and digests become names of files here.
        if not _COMMIT.fullmatch(str(info.sha)) or not all(_DIGEST.fullmatch(file.digest) for file in files.values()):
            raise ValueError("no commit, or a file without a hash")
    return Listing(address, str(info.sha), files, [item.rfilename for item in siblings])


def missing(source: Listing, names: Sequence[str]) -> dict[str, int]:
    """Bytes still to fetch of each of these files that is not on this disk; MoshiError if the repository lacks one."""
    blobs, todo = _home(source.address.repo) / "blobs", {}
    for name in names:
        if not name.endswith(ALLOWED):
            raise MoshiError(f"{name!r} is not fetched: only {', '.join(ALLOWED)} files ever are")
        if name not in source.files:
            raise MoshiError(f"{source.address.repo} has no file {name!r}; look at its page on the Hub")
        remote = source.files[name]
        if not (blobs / remote.digest).exists():
            part = blobs / f"{remote.digest}.part"
            todo[name] = max(0, remote.size - (part.stat().st_size if part.exists() else 0))
    return todo


def check_space(sizes: Iterable[int]) -> int:
    """The sum of these bytes, if it fits on the disk of the cache; MoshiError if not."""
    folder, needed = cache(), sum(sizes)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed and needed + SPARE > free:
        raise MoshiError(
            f"{needed / 1e9:.2f} GB are to be fetched, but the disk of {folder} has {free / 1e9:.2f} GB free; "
            "free some space, set HF_HUB_CACHE to another disk, or choose a smaller model"
        )
    return needed


def check_links() -> None:
    """MoshiError if the disk of the cache has no links, of which the cache is made (exFAT)."""
    probe = cache() / f".link.{uuid.uuid4().hex}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.symlink_to("nothing")
        probe.unlink()
    except OSError as error:
        raise MoshiError(
            f"{cache()} cannot hold links ({error.strerror}), of which the Hub's cache is made; set HF_HUB_CACHE to "
            "another disk, or put the files into a folder and name that"
        ) from None


def link(pointer: Path, blob: Path) -> None:
    """Makes pointer a link to blob, in one move: another command may be doing the same, or a dead link be there."""
    new = pointer.with_name(f".{pointer.name}.{uuid.uuid4().hex}")
    new.symlink_to(os.path.relpath(blob, pointer.parent))
    new.replace(pointer)


def download(source: Listing, names: Sequence[str], progress: Progress) -> Path:
    """Fetches what is not on disk of these files and gives the folder of the snapshot."""
    home = _home(source.address.repo)
    folder = home / "snapshots" / source.commit
    todo = missing(source, names)
    with one_line(source.address.repo, source.address.revision):
        for name in todo:
            _fetch(source, name, home, progress)
        for name, remote in source.files.items():
            pointer, blob = folder / name, home / "blobs" / remote.digest
            if name not in names and not blob.exists():
                continue  # what was fetched for another model of this repository is part of the new commit too
            pointer.parent.mkdir(parents=True, exist_ok=True)
            if not pointer.exists():
                link(pointer, blob)
        if "config.json" not in source.files:
            marker = home / ".no_exist" / source.commit / "config.json"
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
    return folder


def set_reference(source: Listing) -> None:
    """Makes this commit the one that its revision means on this disk; called once all of a checkpoint is there."""
    revision = source.address.revision or "main"
    if not _COMMIT.fullmatch(revision):
        reference = _home(source.address.repo) / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(source.commit)


def is_link(path: Path, root: Path) -> bool:
    """Whether it is one of the links that the cache is made of: snapshots/<commit>/name → blobs/<hash>."""
    if root.parent.name != "snapshots" or not path.is_symlink() or not path.parent.resolve().is_relative_to(root):
        return False
    target = Path(os.path.normpath(path.parent.resolve() / path.readlink()))
    return target.parent == root.parent.parent / "blobs"


def digest_of(path: Path) -> str | None:
    """The digest that a file of the cache bears as its name."""
    real = path.resolve()
    return real.name if real.parent.name == "blobs" and _DIGEST.fullmatch(real.name) else None


def has_digest(path: Path, digest: str) -> bool:
    """Whether the content of the file has this digest (SHA-256, or git's SHA-1 of a blob for 40 digits)."""
    hasher = hashlib.sha256() if len(digest) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            hasher.update(block)
    return hasher.hexdigest() == digest


def _fetch(source: Listing, name: str, home: Path, progress: Progress) -> None:
    """One file to its place among the blobs: continued if it was begun, named only when its hash is right."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import WeakFileLock

    remote = source.files[name]
    blob, part = home / "blobs" / remote.digest, home / "blobs" / f"{remote.digest}.part"
    lock = home.parent / ".locks" / home.name / f"{remote.digest}.lock"
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(source.address.repo, name, revision=source.commit, endpoint=endpoint())
    with WeakFileLock(lock):
        if blob.exists():  # another process was faster
            return
        with part.open("ab") as file:
            stream(url, file, remote.size, lambda done: progress(name, done, remote.size))
        if not has_digest(part, remote.digest):
            part.unlink()
            raise MoshiError(f"{name} of {source.address.repo} came with a wrong hash and was deleted; fetch it again")
        part.replace(blob)
