"""What a model may say, token by token, compiled into a small table (RT-2, section 3.2, "output constraint").

Modes, told apart by their start state:

* ``text``: any text token of the vocabulary, numerals included, then EOS.
* ``action``: one allowed integer for each position, then EOS.
* ``plan``: any text, then the literal ``Action:``, then an action, then EOS.

A model of several embodiments has the last two for each of them: ``action:NAME`` and ``plan:NAME`` (see `mode_of`).

Tokens that behave alike share a class, so the table is states x classes, not states x vocabulary. A sampler holds one
state a row. With n tokens left to emit, it may emit token t in state s if ``next_state[s, token_class[t]]`` is a state
from which the end is at most n - 1 tokens away. A row that starts with ``steps_to_end[start]`` tokens or more then
always has an allowed token, and its EOS always comes in time.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.tokens.action_text import ACTION_MARKER
from rt2_jax.tokens.vocabulary import Vocabulary

MODES = ("action", "plan")
FORBIDDEN = -1
# What may stand before the marker; its tokens must be the same after each.
_MARKER_CONTEXTS = ("pick red cube.", "x", "x)", "7", "7.", "Plan: a", "é")


@dataclasses.dataclass(frozen=True, eq=False)
class Grammar:
    """The compiled table; make one with `build_grammar`.

    Attributes:
        token_class: int32[V], the class of each token, pad and unused ids included.
        next_state: int32[S, C], the state after a token of that class; -1 where it is forbidden.
        steps_to_end: int32[S], the least number of tokens to the end, EOS included; 0 at `end`.
        start: the state in which each mode starts.
        end: the state after EOS; nothing follows. A padding row of a batch starts here.
        action_width: integers in an answer; of the longest where there are several embodiments.
    """

    token_class: np.ndarray
    next_state: np.ndarray
    steps_to_end: np.ndarray
    start: Mapping[str, int]
    end: int
    action_width: int

    @functools.cached_property
    def ends_next(self) -> np.ndarray:
        """bool[S]: true where EOS is the only token allowed, so that no model call is needed to find it."""
        allowed = self.next_state != FORBIDDEN
        return (allowed.sum(1) == 1) & (np.where(allowed, self.next_state, FORBIDDEN).max(1) == self.end)

    @functools.cached_property
    def settled(self) -> np.ndarray:
        """bool[S]: true where the states to come, and so their number, do not depend on what is said in them.

        An action is settled from its first position on, and so is the end.
        """
        settled = np.zeros(len(self.next_state), bool)
        settled[self.end] = True
        allowed = self.next_state != FORBIDDEN
        last = np.where(allowed, self.next_state, FORBIDDEN).max(1)
        one = allowed.any(1) & (~allowed | (self.next_state == last[:, None])).all(1)
        for _ in range(len(settled)):
            settled |= one & settled[last]
        return settled

    def reached(self, starts: np.ndarray) -> np.ndarray:
        """bool[S]: the states that `starts` lead to, themselves included."""
        reached = np.zeros(len(self.next_state), bool)
        reached[starts] = True
        for _ in range(len(reached)):
            after = self.next_state[reached]
            reached[after[after != FORBIDDEN]] = True
        return reached

    @functools.cached_property
    def sha256(self) -> str:
        """Digest of the whole table; equal digests constrain decoding alike."""
        digest = hashlib.sha256(repr((sorted(self.start.items()), self.end, self.action_width)).encode())
        for array in (self.token_class, self.next_state, self.steps_to_end):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array, "<i4").tobytes())
        return digest.hexdigest()

    def min_len(self, mode: str) -> int:
        """The least number of tokens of a complete output in `mode`, EOS included.

        Raises:
            UserError: an unknown mode.
        """
        return int(self.steps_to_end[self.start_state(mode)])

    def start_state(self, mode: str) -> int:
        """The state in which `mode` starts.

        Raises:
            UserError: an unknown mode.
        """
        if mode not in self.start:
            raise UserError(f"mode {mode!r} is unknown; choose one of {', '.join(self.start)}")
        return self.start[mode]

    def accepts(self, tokens: Iterable[int], mode: str) -> bool:
        """Whether `tokens` (up to and with the first EOS, pad after it ignored) is a complete output in `mode`."""
        state = self.start_state(mode)
        for token in tokens:
            if state == self.end:
                break
            state = int(self.next_state[state, self.token_class[token]])
            if state == FORBIDDEN:
                return False
        return state == self.end


def mode_of(mode: str, names: Collection[str], name: str) -> str:
    """The grammar's mode in which the embodiment `name`, one of `names`, answers in "action" or "plan"."""
    return mode if len(names) == 1 else f"{mode}:{name}"


def build_grammar(vocabulary: Vocabulary, allowed: np.ndarray | Mapping[str, np.ndarray]) -> Grammar:
    """Compiles the grammar of a vocabulary and the embodiments of a model.

    Args:
        vocabulary: whose integers the actions are.
        allowed: by embodiment, bool[positions, integers], which integers each position of an answer may take
            (`Embodiment.allowed`); the array alone where there is one embodiment.

    Raises:
        UserError: the vocabulary has no one way to write ``Action:``.
        ValueError: an array has another shape or a position without any integer.
    """
    if not isinstance(allowed, Mapping):
        allowed = {"": allowed}
    tables = {name: np.asarray(table, bool) for name, table in sorted(allowed.items())}
    for table in tables.values():
        if table.ndim != 2 or table.shape[1] > len(vocabulary.integer_ids) or not table.any(1).all():
            raise ValueError(f"allowed is {table.shape}, needs [positions, <= 256] with an integer for every position")
    marker = marker_tokens(vocabulary)

    # What each token is: column 0 text, 1 EOS, 2.. which positions it may fill, last: its place among marker tokens.
    # Positions that may take the same integers share a column.
    rows = [_padded(row, len(vocabulary.integer_ids)) for table in tables.values() for row in table]
    columns = {row: number for number, row in enumerate(dict.fromkeys(row.tobytes() for row in rows))}
    distinct = np.stack([np.frombuffer(row, bool) for row in columns])
    traits = np.zeros((vocabulary.size, len(columns) + 3), np.int32)
    traits[vocabulary.text_ids, 0] = 1
    traits[vocabulary.eos_id, 1] = 1
    traits[vocabulary.integer_ids, 2:-1] = distinct.T
    marker_kinds = sorted(set(marker))
    traits[marker_kinds, -1] = np.arange(1, len(marker_kinds) + 1)
    classes, token_class = np.unique(traits, axis=0, return_inverse=True)
    is_text, is_eos, fills, marker_kind = classes[:, 0] > 0, classes[:, 1] > 0, classes[:, 2:-1] > 0, classes[:, -1]

    # States: text; of each embodiment one for each prefix of the marker, one for each position of the action, and the
    # one before EOS; end.
    text, start = 0, {"text": 0}
    end = 1 + sum(len(marker) + len(table) + 1 for table in tables.values())
    next_state = np.full((end + 1, len(classes)), FORBIDDEN, np.int32)
    next_state[text, is_text] = text
    next_state[text, is_eos] = end
    kind_of = {token: kind for kind, token in enumerate(marker_kinds, 1)}
    plan, positions = 1, iter(rows)
    for name, table in tables.items():
        action = plan + len(marker)
        for matched in range(len(marker)):
            next_state[plan + matched, is_text] = plan
            for token, kind in kind_of.items():
                # Knuth-Morris-Pratt: a full match lands on plan + len(marker), the action's first position.
                next_state[plan + matched, marker_kind == kind] = plan + _overlap(marker, [*marker[:matched], token])
        for position in range(len(table)):
            filling = fills[:, columns[next(positions).tobytes()]]
            next_state[action + position, filling] = action + position + 1
        next_state[action + len(table), is_eos] = end
        start |= {mode_of("action", tables, name): action, mode_of("plan", tables, name): plan}
        plan = action + len(table) + 1

    return Grammar(
        token_class=token_class.reshape(-1).astype(np.int32),
        next_state=next_state,
        steps_to_end=_steps_to_end(next_state, end),
        start=start,
        end=end,
        action_width=max(map(len, tables.values())),
    )


def _padded(row: np.ndarray, length: int) -> np.ndarray:
    return np.pad(row, (0, length - len(row)))


def text_grammar(vocabulary: Vocabulary) -> Grammar:
    """The grammar of a model that knows no actions: mode ``text`` alone."""
    text, end = 0, 1
    other, is_text, is_eos = range(3)
    token_class = np.where(vocabulary.text_ids, is_text, other).astype(np.int32)
    token_class[vocabulary.eos_id] = is_eos
    next_state = np.full((2, 3), FORBIDDEN, np.int32)
    next_state[text, [is_text, is_eos]] = [text, end]
    return Grammar(token_class, next_state, _steps_to_end(next_state, end), {"text": text}, end, action_width=0)


def marker_tokens(vocabulary: Vocabulary) -> list[int]:
    """The tokens of ``Action:`` as they stand in a plan, after a word and before an integer.

    Raises:
        UserError: they depend on what stands before, so that no one sequence marks the action.
    """
    found = []
    for context in _MARKER_CONTEXTS:
        before = vocabulary.encode(context)
        tokens = vocabulary.encode(f"{context} {ACTION_MARKER} {' '.join(vocabulary.integer_words[:2])}")
        tail = [int(vocabulary.integer_ids[0]), int(vocabulary.integer_ids[1])]
        found.append(tokens[len(before) : -2])
        if tokens[: len(before)] != before or tokens[-2:] != tail or not found[-1] or found[-1] != found[0]:
            raise UserError(
                f"vocabulary {vocabulary.path}: {ACTION_MARKER!r} has other tokens after {context!r} than after "
                f"{_MARKER_CONTEXTS[0]!r}; use a vocabulary whose pieces do not cross spaces"
            )
    return found[0]


def _overlap(pattern: list[int], seen: list[int]) -> int:
    """The length of the longest prefix of `pattern` that `seen` ends with."""
    return next(n for n in range(min(len(pattern), len(seen)), -1, -1) if seen[len(seen) - n :] == pattern[:n])


def _steps_to_end(next_state: np.ndarray, end: int) -> np.ndarray:
    far = np.iinfo(np.int32).max // 2
    steps = np.full(len(next_state), far, np.int64)
    steps[end] = 0
    for _ in range(len(next_state)):
        after = np.where(next_state == FORBIDDEN, far, steps[next_state]).min(1) + 1
        steps = np.minimum(steps, after)
    return steps.astype(np.int32)
