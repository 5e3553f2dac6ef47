"""Trains the vocabulary that ships: whole integers, sentinels, bytes, and the words of a corpus."""

import io
import pathlib
from collections.abc import Iterable

import sentencepiece

from rt2_jax.errors import UserError
from rt2_jax.files.writing import whole_file
from rt2_jax.tokens.vocabulary import Vocabulary

# PaLI-X gives each integer up to 1000 its own token. U+2581 is SentencePiece's space: symbols at a word's start only.
INTEGER_SYMBOLS = tuple(f"\u2581{integer}" for integer in range(1000))
EXTRA_IDS = tuple(f"<extra_id_{index}>" for index in range(10))
_BYTES = 256


def train_vocabulary(corpus: Iterable[str], path: str | pathlib.Path, num_words: int = 1024) -> Vocabulary:
    """Trains a BPE SentencePiece model on `corpus` and writes it to `path`; the same corpus gives the same file.

    Text passes unchanged (no Unicode normalisation, no white space removed) and unknown characters fall back to
    bytes, so every string comes back from its tokens as it was.

    Args:
        corpus: lines of text; a line's share decides which words become one piece.
        path: the .model file to write; its folder is made where needed.
        num_words: the most pieces to learn beside integers, sentinels and bytes. A small corpus yields fewer.

    Returns:
        The checked vocabulary.

    Raises:
        UserError: the corpus is empty or has more characters than `num_words`, or the result fails `Vocabulary`'s
            checks.
    """
    lines = [line for line in corpus if line.strip()]
    if not lines:
        raise UserError("vocabulary: the corpus is empty; give at least one line of text")
    symbols = [*EXTRA_IDS, *INTEGER_SYMBOLS]
    stream = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "vocab_size": 3 + len(symbols) + _BYTES + num_words,
        "hard_vocab_limit": False,
        "user_defined_symbols": symbols,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "character_coverage": 1.0,
        # One thread: sums in the training then come in one order, and so the file is the same each time.
        "num_threads": 1,
        "pad_id": Vocabulary.pad_id,
        "eos_id": Vocabulary.eos_id,
        "unk_id": 2,
        "bos_id": -1,
        "minloglevel": 2,
    }
    try:
        sentencepiece.SentencePieceTrainer.Train(sentence_iterator=iter(lines), model_writer=stream, **settings)
    except RuntimeError as error:
        characters = len(set("".join(lines)))
        raise UserError(
            f"vocabulary: num_words is {num_words}, the corpus has {characters} characters, each a piece; raise it "
            f"({error})"
        ) from error
    path = pathlib.Path(path)
    vocabulary = Vocabulary(stream.getvalue(), path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_bytes(stream.getvalue())
    return vocabulary
