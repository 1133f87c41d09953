"""The recorded user, the model again: does it say the same?

With the recording's own model, seed and sampling every token is the same, and this command says so. With another model
or quantization it shows both texts and both turn-takings beside each other.

  moshi-mlx replay demo/
  moshi-mlx replay demo/ --model moshiko-q8 --out demo-q8/
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..frame import FRAME, Codes, MoshiError, Pcm, Reply
from .console import with_bar
from .options import add_model, check_new, keep_resident

if TYPE_CHECKING:
    from ..checkpoints.load import Moshi
    from ..recording.codes import CodesRead
    from ..recording.finish import Understood
    from ..recording.folder import Recording
    from ..recording.info import SessionInfo
    from ..session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a recording")
    parser.add_argument("--from-wav", action="store_true", help="encode the recorded sound again, not its codes")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the replay as a recording of its own")
    parser.add_argument("--json", action="store_true", help="the outcome as data")
    add_model(parser, "the recording's own")


@dataclass
class Replayed:
    """What the model said this time, a row a frame; user: what it heard."""

    tokens: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    codes: list[Codes | None] = field(default_factory=list)
    user: list[Codes] = field(default_factory=list)

    def add(self, reply: Reply) -> None:
        """One more frame, without its sound: an hour of that is 350 MB, and `_keep` decodes it where it is wanted."""
        self.tokens.append(reply.text_token)
        self.texts.append(reply.text)
        self.codes.append(reply.codes)
        self.user.append(reply.user_codes)

    def outcome(self, recorded: CodesRead) -> dict[str, Any]:
        """How it differs from what was recorded. A model with other codebooks speaks and hears in other codes
        throughout; none of the user's can be compared then.
        """
        frames, layout = len(self.tokens), recorded.layout
        text = np.array(self.tokens) != recorded.text_tokens[:frames]
        alike = {len(codes) for codes in self.codes if codes is not None} <= {layout.moshi}
        alike &= {len(codes) for codes in self.user} <= {layout.user}
        sound = np.ones(frames, bool)
        heard: int | None = None
        if alike:
            spoken = np.array([codes is not None for codes in self.codes], bool)
            codes = np.array([np.zeros(layout.moshi, np.int32) if c is None else c for c in self.codes])
            sound = (codes != recorded.moshi[:frames]).any(axis=1) | (spoken != recorded.spoken[:frames])
            heard = int((np.array(self.user) != recorded.user[:frames]).sum())
        differ = np.flatnonzero(text | sound)
        return {
            "frames": frames,
            "identical": not len(differ),
            "first_difference": int(differ[0]) if len(differ) else None,
            "text_tokens_differ": int(text.sum()),
            "frames_of_codes_differ": int(sound.sum()),
            "user_codes_differ": heard,
            "user_codes": frames * layout.user,
        }


def run(args: argparse.Namespace) -> int:
    """Replays; 1 if the same model said something else."""
    from ..recording.finish import understand
    from ..recording.folder import open_recording
    from ..recording.recorder import place_for

    recording = open_recording(args.folder)
    recorded = recording.codes()
    if not len(recorded.text_tokens):
        raise MoshiError(f"{args.folder} holds no frame that could be replayed")
    if args.out is not None:
        check_new(args.out, " for --out")
    with place_for(args.out) if args.out is not None else contextlib.nullcontext():
        session, info, changed = _session(args, recording)
        replayed, stopped = Replayed(), False
        try:
            _replay(session, recording, recorded, args.from_wav, replayed)
        except KeyboardInterrupt:
            if not replayed.tokens:
                raise
            stopped = True
            print(f"stopped after {len(replayed.tokens)} of {len(recorded.user)} frames", file=sys.stderr)
        outcome = {**replayed.outcome(recorded), "changed_files": changed, "from_wav": args.from_wav}
        if not args.json:
            print(_sentence(outcome))
        if args.out is not None or not outcome["identical"]:
            with tempfile.TemporaryDirectory() as scratch:
                again = _keep(session.moshi, replayed, recording, args.out or Path(scratch) / "replay", info)
                _show(args.json, outcome, understand(args.folder), again)
        elif args.json:
            print(json.dumps(outcome, indent=1))
    if stopped:
        return 130
    return 0 if outcome["identical"] or changed or args.from_wav else 1


def _session(args: argparse.Namespace, recording: Recording) -> tuple[Session, SessionInfo, list[str]]:
    """A session as the recording's was; the description of the replay; the files that are not as they were."""
    from ..checkpoints.load import load
    from ..checkpoints.locate import locate
    from ..models.sampling import Sampling
    from ..session import Session
    from .forewarn import forewarn
    from .origin import session_info

    info = recording.info
    source = args.model
    if source is None and info.model != locate(None).label:
        source = info.model
        try:
            moshi = load(source, offline=True)  # a recording may come from anyone: nothing is fetched at its wish
        except MoshiError as error:
            raise MoshiError(f"the model of this recording: {error}; or name one with --model") from None
    else:
        forewarn(source, offline=args.offline)
        moshi = load(source, offline=args.offline)
    try:
        sampling = Sampling(**dict[str, Any](info.sampling))
    except TypeError:
        raise MoshiError(f"{recording.folder} was sampled in a way that this program does not know") from None
    lm = moshi.config.lm
    if (lm.user_q, lm.dep_q, lm.card) != (info.user_codebooks, info.codebooks, info.card) and not args.from_wav:
        raise MoshiError("this model has other codebooks than the recording; --from-wav lets it hear the sound itself")
    session = Session(moshi, info.seed, sampling, info.kv_bits)
    keep_resident(session)
    again = session_info(session, source, live=False, title=f"{info.title} (replay)")
    changed = sorted(name for name, hashed in info.files.items() if hashed != again.files.get(name))
    for name in changed if args.model is None else ():
        print(f"{name} is not the file that was recorded with (its hash differs)", file=sys.stderr)
    return session, again, changed


def _replay(session: Session, recording: Recording, recorded: CodesRead, from_wav: bool, replayed: Replayed) -> None:
    """Every recorded frame through the model; a reset where the recording has one."""
    resets = {event.frame for event in recording.events("reset")}
    sound = _user_frames(recording)
    for frame, user in enumerate(with_bar(list(recorded.user), doing="replaying")):
        if frame in resets:
            session.reset()
        if not from_wav:
            replayed.add(session.reply_to(user, sound=False))
        elif (pcm := next(sound, None)) is not None:
            replayed.add(session.step(pcm))
        else:  # a killed recorder may have left a frame less of sound than of codes
            break


def _user_frames(recording: Recording) -> Iterator[Pcm]:
    import soundfile

    for part in recording.parts:
        for block in soundfile.blocks(part, FRAME, dtype="float32", always_2d=True, fill_value=0):
            yield block[:, 0]


def _keep(moshi: Moshi, replayed: Replayed, recording: Recording, folder: Path, info: SessionInfo) -> Understood:
    """Decodes the replay and writes it as a recording, the recorded user on the left."""
    import mlx.core as mx

    from ..recording.finish import finish
    from ..recording.recorder import Recorder

    events = [event for event in recording.events() if event.kind != "frame"]
    resets = {event.frame for event in events if event.kind == "reset"}
    state = moshi.mimi.make_state()
    with Recorder(folder, replace(info, live=recording.info.live)) as recorder:
        said = list(zip(replayed.tokens, replayed.texts, replayed.codes, replayed.user, strict=True))
        rows = zip(with_bar(said, doing="keeping it"), _user_frames(recording), strict=False)
        for frame, ((token, text, codes, user), heard) in enumerate(rows):
            if frame in resets:
                state = moshi.mimi.make_state()
            pcm = np.zeros(FRAME, np.float32)
            if codes is not None:
                pcm = np.array(moshi.mimi.decode(mx.array(codes)[None, :, None], state))[0, :, 0]
            recorder.add(Reply(frame, pcm, text, token, codes, user), heard)
        for event in events:
            recorder.event(event.kind, event.frame, **event.values)
    if recorder.failure is not None:
        raise MoshiError(recorder.failure)
    return finish(folder)


def _show(as_json: bool, outcome: dict[str, Any], was: Understood, now: Understood) -> None:
    from ..recording.compare import compare_json
    from .tables import print_comparison

    found = {"recorded": was, "replayed": now}
    if as_json:
        print(json.dumps({**outcome, **compare_json(found)}, indent=1, ensure_ascii=False))
    else:
        print_comparison(found)


def _sentence(outcome: dict[str, Any]) -> str:
    frames = outcome["frames"]
    heard = ""
    if outcome["user_codes_differ"] is None:
        heard = "This model has other codebooks. "
    elif outcome["from_wav"]:
        share = outcome["user_codes_differ"] / outcome["user_codes"]
        heard = f"Encoded again, {outcome['user_codes_differ']} of the user's codes differ ({share:.2%}). "
    if outcome["identical"]:
        return f"{heard}Identical: all {frames} frames, every text token and every code."
    return (
        f"{heard}Not identical: from frame {outcome['first_difference']} of {frames} on; "
        f"{outcome['text_tokens_differ']} text tokens and {outcome['frames_of_codes_differ']} frames of codes differ."
    )
