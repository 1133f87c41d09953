"""python -m tools.train_tiny STAGE: make the embedded tiny Moshi. Each stage resumes; README.md here says more."""

from __future__ import annotations

import argparse
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "weights" / "demo"
STAGES = ("data", "codec", "scenes", "codes", "lm", "decoder", "export", "demo", "fixture", "evaluate")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.train_tiny", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "further", "all"), help="what to do; `all`: the first ten in turn")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "tiny", help="folder for what lies between the stages"
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=ROOT / "weights" / "tiny", help="folder of the finished model"
    )
    parser.add_argument("--codec-steps", type=int, default=2300)
    parser.add_argument("--kept", type=int, default=34, help="shards of 520 windows that the codec learns from")
    parser.add_argument("--lm-steps", type=int, help="5900 on a GPU, 3000 smaller ones on a CPU")
    parser.add_argument("--decoder-steps", type=int, help="70000 on a GPU, 8000 on a CPU")
    parser.add_argument("--shards", type=int, default=46, help="scenes are made in shards of 250")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--questions", type=int, default=324, help="of the script, in the evaluation (all)")
    parser.add_argument("--parts", default="", help="parts of the evaluation, with commas between (all)")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for stage in STAGES if options.stage == "all" else (options.stage,):
        print(f"== {stage}", flush=True)
        run(stage, options)


def run(stage: str, options: argparse.Namespace) -> None:
    """One stage. Imports are local: the evaluation needs moshi_mlx and no PyTorch, the training the other way round."""
    work: Path = options.work
    if stage == "evaluate":
        from .evaluate import PARTS, evaluate

        parts = options.parts.split(",") if options.parts else list(PARTS)
        return evaluate(work, options.checkpoint, options.questions, parts)
    if stage == "demo":
        from .demo import make

        return make(work, DEMO)
    if stage == "data":
        from . import answers, clips

        clips.make(work)
        return answers.make(work)
    if stage == "scenes":
        from . import scenes

        return scenes.make(work, range(options.shards))
    import torch

    torch.set_num_threads(options.threads)
    if stage == "codec":
        from . import listen

        listen.keep(work, range(options.kept))
        listen.train(work, options.codec_steps)
    elif stage == "codes":
        from . import codes

        codes.make_own(work)
        codes.make_monitor(work)
        codes.encode_scenes(work)
    elif stage == "lm":
        from . import lm

        lm.train(work, options.lm_steps or (5900 if torch.cuda.is_available() else 3000))
    elif stage == "decoder":
        from . import decoder

        decoder.train(work, options.decoder_steps or (70000 if torch.cuda.is_available() else 8000))
    elif stage == "further":
        from . import further

        further.improve(work)
    elif stage == "fixture":
        from . import fixture

        fixture.make(options.checkpoint, DEMO / "greeting.wav", ROOT / "tests" / "fixtures" / "tiny.npz")
    else:
        from . import export

        export.export(work, options.checkpoint)
    return None


if __name__ == "__main__":
    main()
