"""A SentencePiece vocabulary with one token for each integer 0..255: the bins of an action *are* those tokens.

The integers are its whole numerals where it has them (PaLI-X), else the words ``<0>`` to ``<255>``, with which its
rarest pieces were overwritten (PaLM-E; see `rt2_jax.tokens.adapt`).
"""

import hashlib
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

from rt2_jax.errors import UserError
from rt2_jax.tokens.model_proto import Piece, not_a_model, parse_model, piece_types

DEFAULT_VOCABULARY = pathlib.Path(__file__).resolve().parents[1] / "resources" / "vocabularies" / "tabletop.model"
NUM_INTEGERS = 256
# Embedding tables are padded to a multiple of this, so that they shard and fill the accelerator's lanes.
SIZE_MULTIPLE = 128
NUMERALS = tuple(str(integer) for integer in range(NUM_INTEGERS))
OVERWRITTEN_WORDS = tuple(f"<{integer}>" for integer in range(NUM_INTEGERS))
# Where a model that reads images among text puts their tokens: PaliGemma's and PaLM-E's spelling.
IMAGE_PIECES = ("<image>", "<img>")


class SplitInteger(UserError):
    """No one token for each integer; the one fault that overwriting rare pieces mends."""


class Vocabulary:
    """Text <-> token ids (RT-2, section 3.2). Immutable; make one with `Vocabulary.load`.

    Attributes:
        path: the SentencePiece model file.
        sha256: of that file; checkpoints and prepared data carry it.
        num_pieces: pieces in the model; ids from there to `size` are never used.
        size: `num_pieces` rounded up to a multiple of 128, the model's vocabulary size.
        unk_id: the token of what the pieces cannot spell; with bytes among them, of nothing.
        bos_id: the token that some models want before a text, or None. `encode` never adds it.
        integer_words: how each integer is written as a word: ``128``, or ``<128>`` where pieces were overwritten.
        integer_ids: int32[256], the token of each of these words.
        word_start: what stands before such a word at a text's start: nothing, or a space where the model puts none
            there by itself (Gemma).
        text_ids: bool[size], true for tokens that stand for text: no pad, EOS, unknown, control or unused id, no
            overwritten piece, no image.
        image_id: the token of ``<image>`` or ``<img>`` where a model that reads images among text has it, else None.
    """

    pad_id = 0
    eos_id = 1

    def __init__(self, model: bytes, path: pathlib.Path):
        """Checks the serialised model `model`; `path` is where it came from.

        Raises:
            UserError: not a SentencePiece model, other ids for pad and EOS, or an integer of 0..255 that is not one
                token (`SplitInteger`).
        """
        self.path = path
        self.sha256 = hashlib.sha256(model).hexdigest()
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except (RuntimeError, ValueError) as error:
            raise not_a_model(path) from error
        self.num_pieces = self._processor.GetPieceSize()
        self.size = -(-self.num_pieces // SIZE_MULTIPLE) * SIZE_MULTIPLE
        for name in ("pad_id", "eos_id"):
            found, wanted = getattr(self._processor, name)(), getattr(self, name)
            if found != wanted:
                raise UserError(
                    f"vocabulary {path}: {name} is {found}, needs {wanted}, since decoding ends at EOS 1 and fills "
                    "with pad 0; use a model trained with these ids, as T5's and Gemma's are"
                )
        self.unk_id: int = self._processor.unk_id()
        self.bos_id: int | None = self._processor.bos_id() if self._processor.bos_id() >= 0 else None
        self.integer_words, self.word_start, self.integer_ids = self._integers()
        types = piece_types(parse_model(model, path))
        self.image_id = self._image_id(types)
        self.text_ids = self._text_ids(types)

    @classmethod
    def load(cls, path: str | pathlib.Path = DEFAULT_VOCABULARY) -> "Vocabulary":
        """Reads a SentencePiece model file and checks it.

        Raises:
            UserError: no such file, or a vocabulary whose integers are not single tokens.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise UserError(f"vocabulary {path} does not exist; name a SentencePiece .model file")
        return cls(path.read_bytes(), path)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without BOS and EOS. Characters outside the pieces become bytes, or unknown without."""
        return self._processor.EncodeAsIds(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids up to the first EOS; pad and unused ids have no text."""
        kept = []
        for token in ids:
            if token == self.eos_id:
                break
            if token != self.pad_id and 0 <= token < self.num_pieces:
                kept.append(int(token))
        return self._processor.DecodeIds(kept)

    def piece(self, token: int) -> str:
        """The piece of one token id, with U+2581 for a space; for error messages and inspection."""
        return self._processor.IdToPiece(int(token))

    def _text_ids(self, types: np.ndarray) -> np.ndarray:
        kept = np.zeros(self.size, bool)
        kept[: self.num_pieces] = np.isin(types, (Piece.NORMAL, Piece.USER_DEFINED, Piece.BYTE))
        kept[[self.pad_id, self.eos_id, self.unk_id]] = False
        if self.integer_words is OVERWRITTEN_WORDS:
            kept[self.integer_ids] = False
        if self.image_id is not None:
            kept[self.image_id] = False
        kept.setflags(write=False)
        return kept

    def _image_id(self, types: np.ndarray) -> int | None:
        for piece in IMAGE_PIECES:
            token = self._processor.PieceToId(piece)
            if types[token] == Piece.USER_DEFINED:
                return token
        return None

    def _integers(self) -> tuple[tuple[str, ...], str, np.ndarray]:
        """The words, what stands before them at a text's start, and their ids."""
        for words in (NUMERALS, OVERWRITTEN_WORDS):
            for start in ("", " "):
                ids = self._single_tokens(words, start)
                if ids is not None:
                    return words, start, ids
        split = next((word for word in NUMERALS if self._single_token(word, "") is None), None)
        if split is None:
            fault = "the integers 0 1 2 ... in a row are other tokens than each alone"
        else:
            alone, after_word = self._alone_and_after_word(split, "")
            counts = f"{len(alone)} token(s) alone and {len(after_word)} after a word"
            fault = f"the integer {split} is {counts}, needs the same one token"
        raise SplitInteger(
            f"vocabulary {self.path}: {fault}; overwrite its rarest pieces with "
            "`rt2 data vocabulary --adapt FILE.model --overwrite-by CORPUS.txt`"
        )

    def _single_tokens(self, words: Sequence[str], start: str) -> np.ndarray | None:
        """int32[256], or None unless each word is one token of its own wherever an action string can put it."""
        ids = np.zeros(NUM_INTEGERS, np.int32)
        for integer, word in enumerate(words):
            token = self._single_token(word, start)
            if token is None:
                return None
            ids[integer] = token
        # All in a row: pieces may cross the spaces between them.
        if len(set(ids.tolist())) != NUM_INTEGERS or self.encode(start + " ".join(words)) != ids.tolist():
            return None
        ids.setflags(write=False)
        return ids

    def _single_token(self, word: str, start: str) -> int | None:
        alone, after_word = self._alone_and_after_word(word, start)
        after_itself = self.encode(f"{start}{word} {word}")
        if len(alone) != 1 or after_word != alone or after_itself != alone * 2 or alone[0] == self.unk_id:
            return None
        return alone[0]

    def _alone_and_after_word(self, word: str, start: str) -> tuple[list[int], list[int]]:
        return self.encode(start + word), self.encode(f"Action: {word}")[len(self.encode("Action:")) :]
