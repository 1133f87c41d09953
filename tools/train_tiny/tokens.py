"""The text tokenizer: one SentencePiece piece for each written word of the answers, so a word is a token."""

from __future__ import annotations

from pathlib import Path

import sentencepiece

from .script import answers

EPAD, BOS, EOS, PAD = 0, 1, 2, 3
NAME = "tokenizer.model"


def make(folder: Path) -> sentencepiece.SentencePieceProcessor:
    """Write folder/NAME if it is missing, and load it."""
    path = folder / NAME
    if not path.exists():
        words = {word for answer in answers() for word in answer.split()}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(answers()),
            model_prefix=str(path.with_suffix("")),
            model_type="word",
            vocab_size=len(words) + 4,
            use_all_vocab=True,
            unk_id=EPAD,
            bos_id=BOS,
            eos_id=EOS,
            pad_id=PAD,
            normalization_rule_name="identity",
            minloglevel=2,
        )
        path.with_suffix(".vocab").unlink()
    return sentencepiece.SentencePieceProcessor(str(path))
