"""Films survive their compression, and a few of them show as much as they can."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.evaluate.frames import shrink_frame
from rt2_jax.report import films


def test_a_strip_holds_every_frame_in_order(fakes):
    frames = fakes.film(frames=6).frames
    back = films.decode_strip(films.encode_strip(frames), 6)
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames.astype(int)).mean() < 3
    # Frames brighten with time: their order is kept.
    assert (np.diff(back.reshape(6, -1).mean(axis=1)) > 0).all()


@given(st.integers(1, 500), st.integers(1, 64))
def test_kept_frames_are_ordered_and_hold_the_ends(count, most):
    kept = films.kept_frames(count, most)
    assert len(kept) == min(count, most)
    assert (np.diff(kept) > 0).all()
    assert kept[0] == 0 and (most == 1 or kept[-1] == count - 1)


@pytest.mark.parametrize(
    ("shape", "expected"), [((96, 96), (96, 96)), ((256, 128), (128, 64)), ((100, 300), (43, 128))]
)
def test_frames_shrink_but_never_grow(shape, expected):
    frame = np.full((*shape, 3), 77, np.uint8)
    small = shrink_frame(frame)
    assert small.shape == (*expected, 3) and small.dtype == np.uint8
    assert (small == 77).all()
    assert not np.shares_memory(small, frame)


def test_a_few_films_show_splits_outcomes_and_controls(fakes):
    everything = [
        fakes.film(split, skill, control, success, seed=seed)
        for split in ("seen", "unseen_objects_easy", "symbols")
        for control in (None, "wrong_instruction")
        for skill in ("reach", "pick")
        for success in (True, False)
        for seed in range(3)
    ]
    chosen = films.choose_films(everything, 9)
    assert len(chosen) == 9
    assert {film.split for film in chosen} == {"seen", "unseen_objects_easy", "symbols"}
    assert {film.outcome.success for film in chosen} == {True, False}
    assert {film.skill for film in chosen} == {"reach", "pick"}
    assert 1 <= sum(film.control is not None for film in chosen) <= 3
    positions = [next(i for i, film in enumerate(everything) if film is one) for one in chosen]
    assert positions == sorted(positions)


def test_choosing_more_films_than_there_are_keeps_all(fakes):
    two = [fakes.film(seed=1), fakes.film(seed=2)]
    assert [film.outcome.seed for film in films.choose_films(two, 5)] == [1, 2]
    assert films.choose_films([], 5) == []
