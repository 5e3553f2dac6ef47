"""Makes a public model's SentencePiece file a vocabulary of ours: its own extra pieces, and tokens for the integers.

Everything is written into one new ``.model`` file, which Python, TensorFlow Text and bundles then read alike.
"""

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.files.writing import whole_file
from rt2_jax.tokens.families import family
from rt2_jax.tokens.model_proto import SPACE, ModelProto, Piece, parse_model
from rt2_jax.tokens.rare_pieces import expendable, least_frequent_pieces
from rt2_jax.tokens.vocabulary import NUM_INTEGERS, OVERWRITTEN_WORDS, SplitInteger, Vocabulary


def adapt_vocabulary(
    source: str | pathlib.Path,
    path: str | pathlib.Path,
    family_name: str | None = None,
    corpus: Iterable[str] | None = None,
) -> Vocabulary:
    """Adapts the SentencePiece model `source` and writes it to `path`.

    Args:
        source: a SentencePiece model file, unigram or BPE, with pad 0 and EOS 1.
        path: the ``.model`` file to write; its folder is made where needed.
        family_name: adds the pieces of this family (see `families.FAMILIES`); None adds none.
        corpus: lines of text; the 256 pieces that they use least become the integers. None for a model whose integers
            0..255 are whole already.

    Returns:
        The checked vocabulary.

    Raises:
        UserError: no such model or not of that family; integers that are not whole and no corpus, or the reverse.
    """
    source, path = pathlib.Path(source), pathlib.Path(path)
    if not source.is_file():
        raise UserError(f"vocabulary {source} does not exist; name a SentencePiece .model file")
    model = source.read_bytes()
    size = len(parse_model(model, source).pieces)
    if family_name is not None:
        chosen = family(family_name)
        if size < chosen.num_pieces:
            raise UserError(
                f"vocabulary {source} has {size} pieces, those of family {family_name} have {chosen.num_pieces}; "
                "name the family that it is of, or none"
            )
        model = append_pieces(model, chosen.ids)
    if corpus is not None:
        try:
            Vocabulary(model, source)
        except SplitInteger:
            model = overwrite(model, least_frequent_pieces(model, corpus, NUM_INTEGERS))
        else:
            raise UserError(f"vocabulary {source} has a token for each integer already; leave the corpus out")
    Vocabulary(model, source)  # refuses what is wrong with it before anything is written
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_bytes(model)
    return Vocabulary.load(path)


def append_pieces(model: bytes, ids: Mapping[str, int]) -> bytes:
    """The model with user-defined pieces at the given ids; ids that are skipped get unused pieces.

    A piece that stands at its id already, with a space before it or without, stays as it is spelt.

    Raises:
        UserError: a piece stands at another id, or another piece at its id.
    """
    proto = parse_model(model)
    known = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    for text, wanted in sorted(ids.items(), key=lambda item: item[1]):
        bare = text.removeprefix(SPACE)
        found = known.get(bare, known.get(SPACE + bare))
        if found is None and wanted < len(proto.pieces):
            raise UserError(
                f"vocabulary: token {wanted} is {proto.pieces[wanted].piece!r}, to be {bare!r}; the model is of "
                "another family"
            )
        if found not in (None, wanted):
            raise UserError(f"vocabulary: {bare!r} is token {found}, to be {wanted}; the model is of another family")
        if found is None:
            for gap in range(len(proto.pieces), wanted):
                proto.pieces.add(piece=f"<gap_{gap}>", score=0.0, type=Piece.UNUSED)
            proto.pieces.add(piece=text, score=0.0)
        proto.pieces[wanted].type = Piece.USER_DEFINED
    return _serialised(proto)


def overwrite(model: bytes, ids: Sequence[int] | np.ndarray) -> bytes:
    """The model with the pieces `ids` retired, and the words ``<0>`` to ``<255>`` in their place, in this order.

    Text keeps its tokens unless it used a retired piece, and comes back as before in any case. Its numerals are written
    as before, so that a pretrained model counts as it did (PaLM-E overwrites its rarest pieces likewise).

    Args:
        model: a serialised SentencePiece model, unigram or BPE.
        ids: int[256], different pieces that are `expendable`; see `least_frequent_pieces`.

    Raises:
        UserError: other ids, or a model that has such words already.
    """
    proto = parse_model(model)
    ids = np.asarray(ids)
    allowed = expendable(proto)
    if len(ids) != NUM_INTEGERS or len(np.unique(ids)) != NUM_INTEGERS:
        raise UserError(f"vocabulary: {len(np.unique(ids))} different pieces to overwrite, needs {NUM_INTEGERS}")
    for index in ids:
        if not (0 <= index < len(allowed) and allowed[index]):
            raise UserError(f"vocabulary: token {index} must stay, text needs it; choose with least_frequent_pieces")
    known = {piece.piece for piece in proto.pieces}
    for index, word in zip(ids, OVERWRITTEN_WORDS, strict=True):
        if SPACE + word in known:
            raise UserError(f"vocabulary: the word {word!r} is a piece already; adapt the model as it was published")
        piece = proto.pieces[int(index)]
        piece.piece, piece.score, piece.type = SPACE + word, 0.0, Piece.USER_DEFINED
    return _serialised(proto)


def read_corpus(path: str | pathlib.Path) -> Iterator[str]:
    """The lines of a text file, one after the other.

    Raises:
        UserError: no such file, or one that is not UTF-8.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"corpus {path} does not exist; name a text file with one text a line")
    with path.open(encoding="utf-8") as lines:
        try:
            for line in lines:
                yield line.removesuffix("\n")
        except UnicodeDecodeError as error:
            raise UserError(f"corpus {path} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error


def _serialised(proto: ModelProto) -> bytes:
    # What else a file can hold are samples of its old tokens, by which some releases check a model that they load.
    kept = ModelProto(pieces=proto.pieces)
    for name in ("trainer_spec", "normalizer_spec", "denormalizer_spec"):
        if proto.HasField(name):
            getattr(kept, name).CopyFrom(getattr(proto, name))
    kept.trainer_spec.vocab_size = len(kept.pieces)
    return kept.SerializeToString(deterministic=True)
