"""The network: one file of a repository to one place, continued where it stopped, and every failure in one line."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from ..frame import MoshiError

Progress = Callable[[str, int, int], None]  # file, bytes on disk, bytes in all; called for every block

KEPT = "run the command again, what was fetched is kept"


def endpoint() -> str | None:
    """The Hub to ask: HF_ENDPOINT, read when it is needed."""
    return os.environ.get("HF_ENDPOINT") or None


def stream(url: str, file: BinaryIO, size: int, report: Callable[[int], None]) -> None:
    """Appends to `file` what it lacks of the `size` bytes at `url`; takes up a cut connection while it brings anything.

    report: called with the bytes on disk.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    if file.tell() > size:
        file.truncate(0)
        file.seek(0)
    while True:
        start = file.tell()
        meter = _meter(start, report)
        try:
            http_get(url, file, resume_size=start, headers=build_hf_headers(), expected_size=size, tqdm_class=meter)
            return
        except HfHubHTTPError:
            raise
        except HTTPError:
            file.flush()
            if file.tell() <= start:
                raise


def _meter(start: int, report: Callable[[int], None]) -> Any:
    """A tqdm class that draws nothing and passes the count on: the only way huggingface_hub tells how far it is."""
    from huggingface_hub.utils import tqdm

    class Meter(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.bytes = start
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            self.bytes += int(n or 0)
            report(self.bytes)
            return None

    return Meter


@contextlib.contextmanager
def one_line(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turns what can go wrong between here and the Hub into one MoshiError each."""
    from huggingface_hub import errors
    from huggingface_hub.utils import logging

    page = f"https://huggingface.co/{repo}"
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    except errors.GatedRepoError:
        raise MoshiError(f"{repo} asks for consent: agree at {page}, then run `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise MoshiError(f"{repo} has no revision {revision or 'main'!r}; look at {page}/commits") from None
    except errors.RepositoryNotFoundError:
        raise MoshiError(
            f"the Hub has no repository {repo!r}; check the name (if it is private: `hf auth login`)"
        ) from None
    except errors.EntryNotFoundError:
        raise MoshiError(f"a file of {repo} is gone from the Hub (404); look at {page}") from None
    except errors.OfflineModeIsEnabled:
        raise MoshiError(f"{repo} is not on this disk, and HF_HUB_OFFLINE forbids the network; unset it") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        remedy = "check your login (`hf auth login`, HF_TOKEN)" if status in (401, 403) else KEPT
        raise MoshiError(f"the Hub refused {repo} (status {status}); {remedy}") from None
    except errors.HTTPError as error:
        raise MoshiError(f"no connection to the Hub for {repo} ({type(error).__name__}); {KEPT}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise MoshiError(f"the disk is full; free some space, then {KEPT} of {repo}") from None
        raise MoshiError(f"{repo} could not be stored: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MoshiError(
            f"the answer for {repo} is not that of a Hub ({type(error).__name__}); check HF_ENDPOINT"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
