"""Our vocabulary as a seqio one, so that seqio tasks give the very ids that training and serving use."""

from collections.abc import Iterable, Sequence

import numpy as np
import seqio
import tensorflow as tf

from rt2_jax.tokens.vocabulary import Vocabulary


class SeqioVocabulary(seqio.Vocabulary):
    """Wraps a `Vocabulary`. `encode_tf` calls it through Python: fit for preparing data, not for a TF graph on disk.

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
        """Id that no text gives: unknown characters become bytes."""
        return self.vocabulary.unk_id

    @property
    def _base_vocab_size(self) -> int:
        return self.vocabulary.size

    def _encode(self, s: str) -> list[int]:
        return self.vocabulary.encode(s)

    def _decode(self, ids: Iterable[int]) -> str:
        return self.vocabulary.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        if s.shape.rank not in (0, None):
            raise ValueError(f"SeqioVocabulary encodes one string at a time, not a tensor of shape {s.shape}")
        ids = tf.numpy_function(self._encode_bytes, [s], tf.int32, stateful=False)
        return tf.ensure_shape(ids, [None])

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        if ids.shape.rank != 1:
            raise ValueError(f"SeqioVocabulary decodes one row of ids at a time, not a tensor of shape {ids.shape}")
        return tf.ensure_shape(tf.numpy_function(self._decode_bytes, [ids], tf.string, stateful=False), [])

    def _encode_bytes(self, text: bytes) -> np.ndarray:
        return np.asarray(self.vocabulary.encode(text.decode("utf-8")), np.int32)

    def _decode_bytes(self, ids: Sequence[int]) -> bytes:
        return self.vocabulary.decode(ids).encode("utf-8")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeqioVocabulary) and other.vocabulary.sha256 == self.vocabulary.sha256

    def __hash__(self) -> int:
        return hash(self.vocabulary.sha256)
