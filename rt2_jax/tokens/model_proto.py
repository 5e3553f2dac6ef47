"""A SentencePiece model file as the protocol buffer that it is: which pieces it has, and of which kind."""

import pathlib
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from rt2_jax.errors import UserError

# protobuf makes the classes as the module is imported, where no type checker sees them.
ModelProto: Any = sentencepiece_model_pb2.ModelProto  # pyright: ignore[reportAttributeAccessIssue]
Piece = ModelProto.SentencePiece
# SentencePiece's space, U+2581.
SPACE = "\u2581"


def parse_model(model: bytes, path: str | pathlib.Path = "") -> ModelProto:
    """The parsed model; `path` is named in the error.

    Raises:
        UserError: the bytes are no SentencePiece model.
    """
    try:
        proto = ModelProto.FromString(model)
    except DecodeError as error:
        raise not_a_model(path) from error
    if not proto.pieces:
        raise not_a_model(path)
    return proto


def not_a_model(path: str | pathlib.Path) -> UserError:
    """The error for a file that is no SentencePiece model."""
    return UserError(f"vocabulary {path} is not a SentencePiece model; replace the file")


def piece_types(proto: ModelProto) -> np.ndarray:
    """int32[num_pieces]: each piece's type, such as ``Piece.NORMAL``."""
    return np.array([piece.type for piece in proto.pieces], np.int32)


def is_bpe(proto: ModelProto) -> bool:
    """Whether the model is BPE; if not, it is unigram.

    Raises:
        UserError: it is of neither kind.
    """
    kinds: Any = sentencepiece_model_pb2.TrainerSpec  # pyright: ignore[reportAttributeAccessIssue]
    if proto.trainer_spec.model_type not in (kinds.UNIGRAM, kinds.BPE):
        name = kinds.ModelType.Name(proto.trainer_spec.model_type)
        raise UserError(f"vocabulary: model type {name} cannot be adapted; use a UNIGRAM or BPE model")
    return proto.trainer_spec.model_type == kinds.BPE
