"""Our vocabulary as a seqio one, so that seqio tasks give the very ids that training and serving use."""

import functools
from collections.abc import Iterable
from typing import Any

import seqio
import tensorflow as tf
import tensorflow_text

from rt2_jax.tokens.vocabulary import Vocabulary


class SeqioVocabulary(seqio.Vocabulary):
    """Wraps a `Vocabulary`. In TensorFlow graphs the same SentencePiece model runs as TensorFlow Text's operation.

    Python functions in a graph would do too, but they wait for the interpreter's lock at every example.

    Attributes:
        vocabulary: the wrapped one.
    """

    def __init__(self, vocabulary: Vocabulary):
        super().__init__(extra_ids=0)
        self.vocabulary = vocabulary

    @property
    def eos_id(self) -> int:
        """Id of the end of a target."""
        return self.vocabulary.eos_id

    @property
    def unk_id(self) -> int:
        """Id of what the pieces cannot spell; with bytes among them, of nothing."""
        return self.vocabulary.unk_id

    @property
    def _base_vocab_size(self) -> int:
        return self.vocabulary.size

    def _encode(self, s: str) -> list[int]:
        return self.vocabulary.encode(s)

    def _decode(self, ids: Iterable[int]) -> str:
        return self.vocabulary.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> Any:
        return self._operation.tokenize(s)

    def _decode_tf(self, ids: tf.Tensor) -> Any:
        # The operation knows the model's pieces; ids of the padded rest of the vocabulary have no text.
        known = tf.where(ids < self.vocabulary.num_pieces, ids, self.pad_id)
        return self._operation.detokenize(known)

    @functools.cached_property
    def _operation(self) -> tensorflow_text.SentencepieceTokenizer:
        # Outside any graph: made within one, the model would be that graph's tensor, and unknown to the next.
        with tf.init_scope():
            int32: Any = tf.int32
            return tensorflow_text.SentencepieceTokenizer(model=self.vocabulary.path.read_bytes(), out_type=int32)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeqioVocabulary) and other.vocabulary.sha256 == self.vocabulary.sha256

    def __hash__(self) -> int:
        return hash(self.vocabulary.sha256)
