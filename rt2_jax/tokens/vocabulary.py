"""A SentencePiece vocabulary whose integers 0..255 are one token each: the bins of an action *are* those tokens."""

import hashlib
import pathlib
from collections.abc import Iterable

import numpy as np
import sentencepiece

from rt2_jax.errors import UserError

DEFAULT_VOCABULARY = pathlib.Path(__file__).resolve().parents[2] / "data" / "vocabularies" / "tabletop.model"
NUM_INTEGERS = 256
# Embedding tables are padded to a multiple of this, so that they shard and fill the accelerator's lanes.
SIZE_MULTIPLE = 128


class Vocabulary:
    """Text <-> token ids (PaLI-X's scheme, RT-2 section 3.2). Immutable; make one with `Vocabulary.load`.

    Attributes:
        path: the SentencePiece model file.
        sha256: of that file; checkpoints and prepared data carry it.
        num_pieces: pieces in the model; ids from there to `size` are never used.
        size: `num_pieces` rounded up to a multiple of 128, the model's vocabulary size.
        integer_ids: int32[256], the token of each integer at the start of a word.
        text_ids: bool[size], true for tokens that stand for text: no pad, EOS, unknown, control or unused id.
    """

    pad_id = 0
    eos_id = 1
    unk_id = 2

    def __init__(self, model: bytes, path: pathlib.Path):
        """Checks the serialised model `model`; `path` is where it came from.

        Raises:
            UserError: not a SentencePiece model, other ids for pad, eos and unk, or an integer of 0..255 that is not
                one token.
        """
        self.path = path
        self.sha256 = hashlib.sha256(model).hexdigest()
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"vocabulary {path} is not a SentencePiece model; replace the file") from error
        self.num_pieces = self._processor.GetPieceSize()
        self.size = -(-self.num_pieces // SIZE_MULTIPLE) * SIZE_MULTIPLE
        for name in ("pad_id", "eos_id", "unk_id"):
            found, wanted = getattr(self._processor, name)(), getattr(self, name)
            if found != wanted:
                raise UserError(f"vocabulary {path}: {name} is {found}, needs {wanted}; train it with those ids")
        self.text_ids = self._text_ids()
        self.integer_ids = self._integer_ids()

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
        """Token ids of `text`, without EOS. Characters outside the pieces become bytes, so nothing is lost."""
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

    def _text_ids(self) -> np.ndarray:
        model = self._processor
        kept = np.zeros(self.size, bool)
        for token in range(self.num_pieces):
            kept[token] = not (model.IsControl(token) or model.IsUnknown(token) or model.IsUnused(token))
        kept[[self.pad_id, self.eos_id, self.unk_id]] = False
        kept.setflags(write=False)
        return kept

    def _integer_ids(self) -> np.ndarray:
        ids = np.zeros(NUM_INTEGERS, np.int32)
        for integer in range(NUM_INTEGERS):
            alone = self.encode(str(integer))
            # After a word and after another integer: both places where an action string can put it.
            after_word = self.encode(f"Action: {integer}")[len(self.encode("Action:")) :]
            after_integer = self.encode(f"{integer} {integer}")
            if len(alone) != 1 or after_word != alone or after_integer != alone * 2 or alone[0] == self.unk_id:
                raise UserError(
                    f"vocabulary {self.path}: the integer {integer} is {len(alone)} token(s) alone and "
                    f"{len(after_word)} after a word, needs the same one token; train with whole integers as symbols"
                )
            ids[integer] = alone[0]
        if len(set(ids.tolist())) != NUM_INTEGERS:
            raise UserError(f"vocabulary {self.path}: two integers share a token; train with whole integers as symbols")
        ids.setflags(write=False)
        return ids
