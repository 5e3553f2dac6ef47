"""Episodes in lock-step: the expert succeeds, a stubborn or random policy does not, and the controls control."""

import hashlib
import itertools
import zlib

import numpy as np
import pytest

from rt2_jax.errors import UserError
from rt2_jax.evaluate.closed_loop import Job, make_jobs, run_jobs
from rt2_jax.evaluate.results import CONTROLS
from rt2_jax.evaluate.tabletop_env import TabletopEnvironment, tabletop_spec
from rt2_jax.sim.tasks.controls import other_scene, wrong_instruction
from rt2_jax.sim.tasks.env import TabletopEnv
from rt2_jax.sim.tasks.expert import expert_action
from rt2_jax.sim.tasks.splits import SPLITS, alternatives, sample_task

SIZE = 32
SPEC = tabletop_spec()


class Seats:
    """Makes environments and remembers them in the order of their seats."""

    def __init__(self, **settings):
        self.made, self.settings = [], settings

    def __call__(self):
        self.made.append(TabletopEnvironment(SIZE, **self.settings))
        return self.made[-1]


class Expert:
    """Sees through the frames: acts as the scripted expert would on what it is told, in the world it is shown.

    `shown(seat)` is the environment that a row's frames come from.
    """

    def __init__(self, fakes, shown):
        self.fakes, self.shown, self.calls = fakes, shown, []

    def act(self, images, instructions, mode="action", states=None):
        self.calls.append((images, list(instructions), mode))
        actions = [self._action(self.shown(seat), told) for seat, told in enumerate(instructions)]
        return self.fakes.acting(actions)

    def _action(self, env, told):
        if env.world is None:
            return self.fakes.STAY
        task = env.task
        if told != task.instruction:
            others = alternatives(env.world.scene, task)
            task = next((other for other in others if other.instruction == told), task)
        return expert_action(env.world, task)


class Fixed:
    """One motion for each instruction, whatever it sees."""

    def __init__(self, fakes):
        self.fakes = fakes

    def act(self, images, instructions, mode="action", states=None):
        seeds = [self.seed(image, told) for image, told in zip(images, instructions, strict=True)]
        bins = np.stack([np.random.default_rng(seed).integers(60, 196, 8) for seed in seeds])
        bins[:, 0] = 1
        return self.fakes.acting(self.fakes.BINS.decode(bins))

    def seed(self, image, told):
        return zlib.crc32(told.encode())


class Seeing(Fixed):
    """Another motion wherever a single pixel of any frame differs."""

    def seed(self, image, told):
        return zlib.crc32(told.encode() + image.tobytes())


class Still:
    """Never moves and never stops."""

    def __init__(self, fakes):
        self.fakes, self.calls = fakes, []

    def act(self, images, instructions, mode="action", states=None):
        self.calls.append((images, list(instructions), mode))
        return self.fakes.acting([self.fakes.STAY] * len(images))


def run(fakes, jobs, shown=lambda seats, seat: seats.made[seat].env, **settings):
    seats = Seats()
    expert = Expert(fakes, lambda seat: shown(seats, seat))
    return run_jobs(expert, jobs, seats, image_size=SIZE, **settings), expert


def test_the_expert_succeeds_at_every_skill_through_the_tokens(fakes):
    jobs = make_jobs(SPEC, ["seen", "symbols"], None, 2)
    result, expert = run(fakes, jobs, seats=4, film_count=1)
    assert [(one.split, one.skill) for one in result.skills] == [
        *(("seen", skill) for skill in SPLITS["seen"].skills),
        ("symbols", "place"),
    ]
    for one in result.skills:
        assert (one.successes, one.episodes) == (2, 2), one
        assert [outcome.seed for outcome in one.outcomes] == [0, 1]
        assert all(outcome.terminated for outcome in one.outcomes)
    # Every call has the same shape, whoever has left.
    assert {images.shape for images, *_ in expert.calls} == {(4, 1, SIZE, SIZE, 3)}
    assert result.timing.policy_calls == len(expert.calls)
    assert result.timing.control_steps == sum(o.steps for one in result.skills for o in one.outcomes)
    assert result.timing.policy + result.timing.simulation == pytest.approx(result.timing.total)
    assert len(result.films) == len(result.skills)


def test_an_episode_does_not_depend_on_its_company(fakes):
    together, _ = run(fakes, make_jobs(SPEC, ["seen"], ["reach", "pick"], 2), seats=4)
    alone, _ = run(fakes, [Job("seen", "pick", None, 1)], seats=4)
    assert alone.skills[0].outcomes == together.skills[1].outcomes[1:]


def test_a_film_shows_what_the_policy_saw_and_did(fakes):
    result, expert = run(fakes, [Job("seen", "reach", None, 3)], seats=1)
    (film,) = result.films
    outcome = result.skills[0].outcomes[0]
    assert film.outcome == outcome and outcome.success
    assert film.frames.shape == (outcome.steps, SIZE, SIZE, 3)
    assert film.actions.shape == film.bins.shape == (outcome.steps, 8)
    for seen, (images, told, _) in zip(film.frames, expert.calls, strict=True):
        assert (images[0, -1] == seen).all()
        assert told == [outcome.instruction]
    assert film.actions[-1, 0] == 1.0 and (film.actions[:-1, 0] == 0.0).all()
    assert film.texts[0] == " ".join(map(str, film.bins[0]))
    # The arm moved.
    assert (film.frames[0] != film.frames[-1]).any()


def test_a_policy_that_does_nothing_fails_when_time_is_up(fakes):
    still = Still(fakes)
    jobs = make_jobs(SPEC, ["seen"], None, 1)
    result = run_jobs(still, jobs, Seats(max_steps=3), image_size=SIZE, mode="plan")
    for one in result.skills:
        assert (one.successes, one.episodes, one.max_steps, one.mode) == (0, 1, 3, "plan")
        assert (one.outcomes[0].steps, one.outcomes[0].terminated) == (3, False)
    assert {mode for *_, mode in still.calls} == {"plan"}


def test_random_actions_hardly_ever_succeed(fakes):
    rng = np.random.default_rng(0)

    class Random:
        def act(self, images, instructions, mode="action", states=None):
            bins = rng.integers(0, 256, (len(images), 8))
            bins[:, 0] = 1
            return fakes.acting(fakes.BINS.decode(bins))

    jobs = make_jobs(SPEC, ["seen"], ["pick", "move_near", "place"], 2)
    result = run_jobs(Random(), jobs, Seats(max_steps=10), image_size=SIZE)
    assert sum(one.successes for one in result.skills) == 0


def test_films_hold_successes_and_failures_apart(fakes):
    jobs = make_jobs(SPEC, ["seen"], ["reach"], 4)
    fails = {sample_task("seen", "reach", seed)[1].instruction for seed in (1, 3)}
    seats = Seats()
    expert = Expert(fakes, lambda seat: seats.made[seat].env)

    class Moody:
        def act(self, images, instructions, mode="action", states=None):
            output = expert.act(images, instructions, mode)
            for row, told in enumerate(instructions):
                if told in fails:
                    output.actions[row] = [1, 0, 0, 0, 0, 0, 0, -1]
            return output

    result = run_jobs(Moody(), jobs, seats, image_size=SIZE, film_count=1)
    assert result.skills[0].successes == 2
    assert sorted(film.outcome.success for film in result.films) == [False, True]
    # Stopping at once is one step, and a failure that the policy chose.
    assert [(o.steps, o.terminated) for o in result.skills[0].outcomes if not o.success] == [(1, True)] * 2


def test_wrong_instructions_are_followed_and_fail(fakes):
    jobs = make_jobs(SPEC, ["seen"], ["reach", "pick", "push"], 2, controls=["wrong_instruction"])
    result, expert = run(fakes, jobs, seats=2)
    for one in result.skills:
        assert one.control == "wrong_instruction"
        assert one.successes == 0, one
        for outcome in one.outcomes:
            _, task = sample_task("seen", one.skill, outcome.seed)
            assert outcome.instruction == task.instruction != outcome.told
            # It was done, though not what was asked: the expert stopped by itself.
            assert outcome.terminated
    told = {text for _, instructions, _ in expert.calls for text in instructions}
    assert {outcome.told for one in result.skills for outcome in one.outcomes} <= told


def test_another_image_misleads(fakes):
    def twin(seats, seat):
        return seats.made[seat].twin

    jobs = [Job("seen", "reach", "other_image", seed) for seed in range(2)]
    result, expert = run(fakes, jobs, shown=twin, seats=1)
    (one,) = result.skills
    assert one.control == "other_image" and one.successes == 0
    assert all(outcome.terminated and outcome.told == outcome.instruction for outcome in one.outcomes)
    # The policy was shown the other table, from the first frame on.
    truth = TabletopEnv(SIZE)
    scene, task = sample_task("seen", "reach", 0)
    observation, _ = truth.reset(options={"scene": scene, "task": task})
    truth.close()
    assert (expert.calls[0][0][0, -1] != observation["image"]).any()


def test_a_policy_of_several_frames_gets_the_last_ones(fakes):
    result, expert = run(fakes, [Job("seen", "reach", None, 0)], seats=1, num_images=3)
    shown = [images[0] for images, *_ in expert.calls]
    assert shown[0].shape == (3, SIZE, SIZE, 3)
    # Before the first there was none.
    assert not shown[0][:-1].any() and shown[0][-1].any()
    for before, after in itertools.pairwise(shown):
        assert (before[1:] == after[:-1]).all()
    assert (result.films[0].frames[1] == shown[1][-1]).all()


def test_episodes_report_as_they_end(fakes):
    ended = []
    jobs = make_jobs(SPEC, ["seen"], ["reach"], 3)
    run(fakes, jobs, seats=2, on_episode=lambda job, outcome: ended.append((job, outcome.seed)))
    assert sorted(ended, key=lambda pair: pair[1]) == [(job, job.seed) for job in jobs]


def test_environments_are_closed_when_the_policy_breaks():
    seats = Seats()

    class Broken:
        def act(self, images, instructions, mode="action", states=None):
            raise RuntimeError("no logits")

    with pytest.raises(RuntimeError, match="no logits"):
        run_jobs(Broken(), make_jobs(SPEC, ["seen"], ["reach"], 2), seats, image_size=SIZE)
    assert all(made.env.world is None for made in seats.made) and len(seats.made) == 2


def test_jobs_are_the_product_in_order():
    jobs = make_jobs(SPEC, ["symbols", "seen"], ["place", "reach"], 2, 5, [None, "wrong_instruction"])
    assert jobs[:4] == [
        Job("symbols", "place", None, 5),
        Job("symbols", "place", None, 6),
        Job("symbols", "place", "wrong_instruction", 5),
        Job("symbols", "place", "wrong_instruction", 6),
    ]
    assert len(jobs) == 4 + 8 and len(set(jobs)) == 12


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((["nowhere"], None, 1), "nowhere"),
        ((["seen"], ["juggle"], 1), "juggle"),
        ((["seen"], None, 0), "episodes is 0"),
        ((["seen"], None, 1, -1), "seed is -1"),
        ((["seen"], None, 1, 0, ["blindfold"]), "blindfold"),
    ],
)
def test_mistakes_are_named(arguments, named):
    with pytest.raises(UserError, match=named):
        make_jobs(SPEC, *arguments)


def test_the_tabletop_goes_as_it_did_before_it_was_one_environment_of_many(fakes):
    """The digest is of what the loop did when it knew the tabletop alone; no pixel is in it, for those differ by GL."""
    controls = [None, *CONTROLS]
    jobs = make_jobs(SPEC, ["seen", "reasoning"], ["reach", "push"], 2, 3, controls)
    result = run_jobs(Fixed(fakes), jobs, Seats(max_steps=6), image_size=SIZE, film_count=9, seats=8)
    digest = hashlib.sha256()
    for one in result.skills:
        digest.update(repr((one.split, one.skill, one.control, one.mode, one.max_steps)).encode())
        for found in one.outcomes:
            end = (found.seed, found.success, found.steps, found.terminated, found.instruction, found.told)
            digest.update(repr(end).encode())
    for film in result.films:
        digest.update(film.actions.tobytes() + film.bins.tobytes() + repr(film.texts).encode())
    assert (len(result.films), result.timing.control_steps, result.timing.policy_calls) == (24, 144, 18)
    assert digest.hexdigest() == "1e9ba175532b0bbb68ec33056683df633005bc23dda96c9c58e137955ef26f2d"


def by_hand(policy, job, num_images, max_steps):
    """One episode in gymnasium's own terms: frames seen, actions, success."""
    scene, task = sample_task(job.split, job.skill, job.seed)
    world, shown, told = TabletopEnv(SIZE, max_steps), None, task.instruction
    observation = world.reset(options={"scene": scene, "task": task})[0]
    if job.control == "wrong_instruction":
        told = wrong_instruction(scene, task, job.seed).instruction
    if job.control == "other_image":
        shown = TabletopEnv(SIZE, max_steps)
        observation = shown.reset(options={"scene": other_scene(scene, task, job.seed), "task": task})[0]
    nothing = np.zeros_like(observation["image"])
    frames, actions, ended = [nothing] * (num_images - 1) + [observation["image"]], [], False
    while not ended:
        output = policy.act(np.stack(frames[-num_images:])[None], [told])
        actions.append(output.actions[0])
        observation, _, terminated, truncated, info = world.step(actions[-1])
        frames.append((shown.step(actions[-1])[0] if shown else observation)["image"])
        ended = terminated or truncated
    for env in (world, shown):
        if env is not None:
            env.close()
    return np.stack(frames[num_images - 1 : -1]), np.stack(actions), info["success"], terminated


def test_every_pixel_is_the_one_that_the_world_shows(fakes):
    """A policy whose motions depend on all pixels does in company what it does alone in gymnasium's own loop."""
    jobs = make_jobs(SPEC, ["seen", "unseen_environments_hard"], ["reach"], 2, 5, [None, *CONTROLS])
    result = run_jobs(Seeing(fakes), jobs, Seats(max_steps=5), image_size=SIZE, num_images=2, film_count=9, seats=4)
    assert len(result.films) == len(jobs)
    for job, film in zip(jobs, result.films, strict=True):
        frames, actions, success, terminated = by_hand(Seeing(fakes), job, 2, 5)
        assert (film.frames == frames).all() and (film.actions == actions).all()
        assert (film.outcome.success, film.outcome.terminated) == (success, terminated)
