"""From what a person names (a folder, a file, an alias, a Hub id, an hf:// address, nothing) to a folder on this disk.

`locate(source)` gives a `Located`; its `file(name)` resolves the names found in a config.json: plain names inside the
folder, `file://` paths inside the folder, and `hf://org/repo/path` addresses. A name never leads out of its folder, be
it by `..`, by an absolute path or by a symbolic link; the links of the Hugging Face cache into its own `blobs` are
the one exception. Nothing is downloaded that is already on disk.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..frame import MoshiError
from . import hub
from .address import Address, is_plain, looks_like_id, parse
from .companions import Files, roles
from .config_file import lm_config, read_json
from .header import read_header
from .known import BY_ALIAS, UNSUPPORTED
from .meter import Meter
from .transfer import Progress

_PACKAGE = Path(__file__).resolve().parent.parent
EMBEDDED = (_PACKAGE.parent / "weights" / "tiny", _PACKAGE / "weights" / "tiny")  # in a clone, in a wheel


@dataclass(frozen=True, slots=True)
class Located:
    """A checkpoint on this disk.

    folder: where plain names are looked up. label: what a person calls it. weights: the file of the model (a path
    inside `folder`) where the source named one. embedded: it is the demonstration model.
    """

    folder: Path
    label: str
    weights: str | None = None
    embedded: bool = False
    offline: bool = False
    progress: Progress | None = None

    def file(self, name: str) -> Path:
        """The file that `name` (the value of a config's `*_name` key) means; an hf:// address is fetched if need be.

        Raises MoshiError if the file is missing or outside the folder.
        """
        if not name.startswith("hf://"):
            return inside(self.folder, name)
        address = parse(name)
        if address.file is None:
            raise MoshiError(f"{name} names no file; write hf://org/repo/path/to/file")
        return inside(one_file(address, self.offline, self.progress), address.file)

    def has(self, name: str) -> bool:
        """Whether a plain name is there."""
        return (self.folder / name).is_file()

    def read_json(self, name: str) -> Any:
        """The content of a JSON file of the checkpoint; MoshiError as for `file` and `read_json`."""
        return read_json(self.file(name))

    def files(self) -> Files:
        """The names of the files of this checkpoint by role."""
        try:
            return roles(_names(self.folder), _config(self.folder), self.weights)
        except MoshiError as error:
            raise MoshiError(f"{self.label}: {error}") from None


def locate(source: str | Path | None, *, offline: bool = False, progress: Progress | None = None) -> Located:
    """The folder that `source` means, downloaded first if it has to be.

    source: None (the embedded demonstration model), a folder, a .safetensors file, an alias of known.py, `org/repo`,
    `hf://org/repo` or `hf://org/repo/file`, the last four with an optional `@revision` after the repository or alias.
    offline: use what is on disk or fail. progress: is told about downloads (default: a line on stderr).
    """
    if source is None:
        folder = next((folder for folder in EMBEDDED if folder.is_dir()), None)
        if folder is None:
            raise MoshiError(
                "this installation lacks the embedded model; name one with --model or reinstall moshi-live"
            )
        return Located(folder, "the embedded demonstration model", embedded=True, offline=offline, progress=progress)
    address = address_of(source)
    if address is None:
        return _local(Path(source).expanduser(), offline, progress)
    folder = _from_hub(str(source), address, offline, progress)
    return Located(folder, str(source), address.file, offline=offline, progress=progress)


def address_of(source: str | Path) -> Address | None:
    """Where on the Hub `source` is, None if it is a path of this disk; MoshiError if it is neither."""
    text = str(source)
    if isinstance(source, Path) or text.startswith((".", "/", "~")) or Path(text).exists():
        return None
    alias, _, revision = text.partition("@")
    if known := BY_ALIAS.get(alias):
        return Address(known.repo, revision or None, known.weights)
    if text.startswith("hf://") or looks_like_id(text):
        return parse(text)
    near = difflib.get_close_matches(alias, BY_ALIAS, 3, 0.5) or ["moshiko-q4", "moshika-q4"]
    raise MoshiError(
        f"there is no folder and no known model {text[:120]!r}; did you mean {' or '.join(near)}? "
        "`moshi-mlx models list` shows all"
    )


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, if that is a file of that folder; MoshiError otherwise."""
    plain = name.removeprefix("file://")
    if plain.startswith("/"):  # file:///absolute: allowed where it leads into the folder
        path = Path(plain)
    elif is_plain(plain):
        path = folder / plain
    else:
        raise MoshiError(f"{name[:120]!r} is not the name of a file in {folder}; mend its config.json")
    try:
        root = folder.resolve()
        if not path.resolve().is_relative_to(root) and not hub.is_link(path, root):
            raise MoshiError(f"{name!r} leads out of {folder}; put the file into it, or name it as hf://org/repo/file")
        if not path.is_file():
            raise MoshiError(f"{folder} has no file {plain!r}; get the model again or mend its config.json")
    except (OSError, RuntimeError) as error:  # a loop of links, a name too long
        raise MoshiError(f"{str(path)[:200]} cannot be reached ({type(error).__name__}); check the name") from None
    return path


def get(address: Address, progress: Progress | None = None) -> Path:
    """Asks the Hub for the newest state of a repository, fetches what is not on this disk of it, gives its folder."""
    for pattern, what in UNSUPPORTED:
        if pattern.fullmatch(address.repo):
            raise MoshiError(f"{address.repo} is {what}")
    source = hub.listing(address)
    report = progress or Meter()
    config = None
    if "config.json" in source.files:
        config = _config(hub.download(source, ["config.json"], report))
    try:
        files = roles([name for name in source.names if "/" not in name], config, address.file)
    except MoshiError as error:
        raise MoshiError(f"{address.repo}: {error}") from None
    if files.family == "moshi" and config is not None:
        with warnings.catch_warnings(action="ignore"):  # loading says them
            lm_config(config, f"{address.repo}/config.json")  # refuses before anything large is fetched
    own, others = _split(files)
    plan = [(source, own), *((hub.listing(other), [str(other.file)]) for other in others if _cached(other) is None)]
    if size := hub.check_space(size for listing, names in plan for size in hub.missing(listing, names).values()):
        hub.check_links()
    if progress is None and size:
        print(f"fetching {size / 1e9:.2f} GB of {address.repo} to {hub.cache()}", file=sys.stderr)
    for listing, names in plan:
        hub.download(listing, names, report)
        hub.set_reference(listing)
    return hub.download(source, own, report)


def _split(files: Files) -> tuple[list[str], list[Address]]:
    """The files of a checkpoint: those of its own repository, and those of others."""
    own, others = [], []
    for name in files.all():
        if name.startswith("hf://"):
            others.append(parse(name))
        else:
            own.append(name.removeprefix("file://"))
    return own, others


def _from_hub(source: str, address: Address, offline: bool, progress: Progress | None) -> Path:
    """The snapshot of a repository, fetched only if it is not whole on this disk. source: as a person named it."""
    folder = hub.snapshot(address)
    lacking = [] if folder is None else _lacking(folder, address.file, offline)
    if folder is not None and not lacking:
        return folder
    if offline:
        how = f"not whole on this disk (it lacks {lacking[0]})" if lacking else "not on this disk"
        raise MoshiError(f"{source} is {how}; `moshi-mlx models get {source}` fetches it")
    return get(address, progress)


def _lacking(folder: Path, weights: str | None, offline: bool) -> list[str]:
    """What a snapshot lacks to be a whole checkpoint."""
    if not (folder / "config.json").exists() and not offline and not hub.known_absent(folder, "config.json"):
        return ["config.json"]  # may exist: another program fetched only what it needed
    try:
        own, others = _split(roles(_names(folder), _config(folder), weights))
    except MoshiError as error:
        return [str(error)]
    return [name for name in own if not (folder / name).is_file()] + [
        f"{other.repo}/{other.file}" for other in others if _cached(other) is None
    ]


def on_disk(source: str) -> bool:
    """Whether a model is whole here, so that nothing would be fetched."""
    try:
        locate(source, offline=True)
    except (MoshiError, OSError):
        return False
    return True


def _cached(address: Address) -> Path | None:
    """The snapshot that holds this one file on this disk."""
    folder = hub.snapshot(address)
    return folder if folder is not None and (folder / str(address.file)).is_file() else None


def in_reach(address: Address, offline: bool) -> bool:
    """Whether `one_file` would find this one file."""
    return _cached(address) is not None or (not offline and str(address.file) in hub.listing(address).files)


def one_file(address: Address, offline: bool, progress: Progress | None) -> Path:
    """The snapshot that holds the one file of this address, fetched if need be, and nothing else of its repository."""
    if folder := _cached(address):
        return folder
    if offline:
        raise MoshiError(f"{address.repo}/{address.file} is not on this disk; run once without --offline")
    source, names = hub.listing(address), [str(address.file)]
    if hub.check_space(hub.missing(source, names).values()):
        hub.check_links()
    folder = hub.download(source, names, progress or Meter())
    hub.set_reference(source)
    return folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _config(folder: Path) -> Any:
    path = folder / "config.json"
    return read_json(inside(folder, "config.json")) if path.exists() or path.is_symlink() else None


def _local(path: Path, offline: bool, progress: Progress | None) -> Located:
    """A folder of this disk, or a file in one."""
    if path.is_dir():
        return Located(path, str(path), offline=offline, progress=progress)
    if not path.exists():
        raise MoshiError(f"{path} does not exist; name a folder with a model, or one of `moshi-mlx models list`")
    file = inside(path.parent, path.name)
    if path.suffix != ".safetensors":
        read_header(file)  # what is no model is told as what it is, not by what is missing beside it
    return Located(path.parent, str(path), file.name, offline=offline, progress=progress)
