"""Small SentencePiece models in the look of public ones, and the text that they are trained on."""

import functools
import io
import random

import sentencepiece

from rt2_jax.tokens.model_proto import ModelProto, Piece

_WORDS = (
    "pick push place the red cube gripper what action should robot take to Instruction Plan Action: Generate caption "
    "in ? rote Kugel Würfel neben auf dem Tisch étoile près de la boîte cubo estrella más <b>bold</b> Q: A: (small)"
).split()
_SYLLABLES = "ba cu der é fin go ha ish jol ka li mo na öst pra qui ro sta tion ung ver wo xa yel zig".split()


def _corpus(lines: int) -> list[str]:
    """Sentences of words, a few of them real, and numerals; some words far more often than others."""
    rng = random.Random(0)
    words = [*_WORDS, *("".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(1500))]
    weights = [1.0 / rank for rank in range(1, len(words) + 1)]
    sentences = (rng.choices(words, weights, k=rng.randint(2, 12)) for _ in range(lines))
    return [f"{' '.join(sentence)} {rng.randint(0, 2100)}." for sentence in sentences]


CORPUS = _corpus(3000)
T5_IDS = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
GEMMA = {
    "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "model_type": "bpe", "byte_fallback": True,
    "split_digits": True, "add_dummy_prefix": False, "remove_extra_whitespaces": False,
    "normalization_rule_name": "identity", "allow_whitespace_only_pieces": True,
}  # fmt: skip
LOOKS = {
    # Normalised text, characters that it does not know, no bytes.
    "t5": {**T5_IDS, "model_type": "unigram", "normalization_rule_name": "nmt_nfkc"},
    "mt5": {**T5_IDS, "model_type": "unigram", "normalization_rule_name": "nmt_nfkc", "byte_fallback": True},
    "gemma": GEMMA,
    "bpe_without_bytes": {**T5_IDS, "model_type": "bpe", "split_digits": True},
}


def train(look: str, vocab_size: int = 900, **settings) -> bytes:
    """A model of `vocab_size` pieces or a few less; the same arguments give the same bytes."""
    stream = io.BytesIO()
    settings = {**LOOKS[look], "vocab_size": vocab_size, **settings}
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(CORPUS), model_writer=stream, hard_vocab_limit=False, num_threads=1, minloglevel=2,
        **settings,
    )  # fmt: skip
    return stream.getvalue()


@functools.cache
def fabricated(num_pieces: int, added: tuple[str, ...] = (), kind: int = Piece.USER_DEFINED) -> bytes:
    """A unigram model of as many pieces as a public one, with `added` at its end."""
    proto = ModelProto()
    proto.trainer_spec.pad_id, proto.trainer_spec.eos_id, proto.trainer_spec.unk_id = 0, 1, 2
    proto.trainer_spec.bos_id = -1
    proto.normalizer_spec.add_dummy_prefix = True
    for special, type_ in (("<pad>", Piece.CONTROL), ("</s>", Piece.CONTROL), ("<unk>", Piece.UNKNOWN)):
        proto.pieces.add(piece=special, score=0.0, type=type_)
    characters = "\u2581abcdefghijklmnopqrstuvwxyz0123456789:.,<>A"
    for rank in range(num_pieces - 3):
        text = characters[rank] if rank < len(characters) else _word(rank)
        proto.pieces.add(piece=text, score=-1.0 - rank / num_pieces)
    for piece in added:
        proto.pieces.add(piece=piece, score=0.0, type=kind)
    return proto.SerializeToString()


def _word(rank: int) -> str:
    """Another word for each rank."""
    return "\u2581w" + "".join(chr(ord("a") + int(digit)) for digit in str(rank))


def processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """SentencePiece itself, without our checks."""
    loaded = sentencepiece.SentencePieceProcessor()
    loaded.LoadFromSerializedProto(model)
    return loaded
