"""Episodes in lock-step: the expert succeeds, a stubborn or random policy does not, and the controls control."""

import numpy as np
import pytest

from rt2_jax.errors import UserError
from rt2_jax.evaluate import closed_loop
from rt2_jax.evaluate.closed_loop import Job, make_jobs, run_jobs
from rt2_jax.sim.tasks.env import TabletopEnv
from rt2_jax.sim.tasks.expert import expert_action
from rt2_jax.sim.tasks.splits import SPLITS, alternatives, sample_task

SIZE = 32


class Seats:
    """Makes environments and remembers them in the order of their seats."""

    def __init__(self):
        self.envs = []

    def __call__(self, image_size, max_steps):
        self.envs.append(TabletopEnv(image_size, max_steps))
        return self.envs[-1]


class Expert:
    """Sees through the frames: acts as the scripted expert would on what it is told, in the world it is shown.

    `shown(seat)` is the environment that a row's frames come from.
    """

    def __init__(self, fakes, shown):
        self.fakes, self.shown, self.calls = fakes, shown, []

    def act(self, images, instructions, mode="action"):
        self.calls.append((images, list(instructions), mode))
        actions = [self._action(self.shown(seat), told) for seat, told in enumerate(instructions)]
        return self.fakes.acting(actions)

    def _action(self, env, told):
        if env.world is None:
            return self.fakes.stay
        task = env.task
        if told != task.instruction:
            others = alternatives(env.world.scene, task)
            task = next((other for other in others if other.instruction == told), task)
        return expert_action(env.world, task)


class Still:
    """Never moves and never stops."""

    def __init__(self, fakes):
        self.fakes, self.calls = fakes, []

    def act(self, images, instructions, mode="action"):
        self.calls.append((images, list(instructions), mode))
        return self.fakes.acting([self.fakes.stay] * len(images))


def run(fakes, jobs, shown=lambda seats, seat: seats.envs[seat], **settings):
    seats = Seats()
    expert = Expert(fakes, lambda seat: shown(seats, seat))
    return run_jobs(expert, jobs, image_size=SIZE, make_env=seats, **settings), expert


def test_the_expert_succeeds_at_every_skill_through_the_tokens(fakes):
    jobs = make_jobs(["seen", "symbols"], None, 2)
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
    together, _ = run(fakes, make_jobs(["seen"], ["reach", "pick"], 2), seats=4)
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
    result = closed_loop.evaluate_split(still, "seen", episodes=1, max_steps=3, image_size=SIZE, mode="plan")
    for one in result.skills:
        assert (one.successes, one.episodes, one.max_steps, one.mode) == (0, 1, 3, "plan")
        assert (one.outcomes[0].steps, one.outcomes[0].terminated) == (3, False)
    assert {mode for *_, mode in still.calls} == {"plan"}


def test_random_actions_hardly_ever_succeed(fakes):
    rng = np.random.default_rng(0)

    class Random:
        def act(self, images, instructions, mode="action"):
            bins = rng.integers(0, 256, (len(images), 8))
            bins[:, 0] = 1
            return fakes.acting(fakes.bins.decode(bins))

    jobs = make_jobs(["seen"], ["pick", "move_near", "place"], 2)
    result = run_jobs(Random(), jobs, image_size=SIZE, max_steps=10)
    assert sum(one.successes for one in result.skills) == 0


def test_films_hold_successes_and_failures_apart(fakes):
    def half(seats, seat):
        return seats.envs[seat]

    jobs = make_jobs(["seen"], ["reach"], 4)
    fails = {sample_task("seen", "reach", seed)[1].instruction for seed in (1, 3)}
    seats = Seats()
    expert = Expert(fakes, lambda seat: half(seats, seat))

    class Moody:
        def act(self, images, instructions, mode="action"):
            output = expert.act(images, instructions, mode)
            for row, told in enumerate(instructions):
                if told in fails:
                    output.actions[row] = [1, 0, 0, 0, 0, 0, 0, -1]
            return output

    result = run_jobs(Moody(), jobs, image_size=SIZE, make_env=seats, film_count=1)
    assert result.skills[0].successes == 2
    assert sorted(film.outcome.success for film in result.films) == [False, True]
    # Stopping at once is one step, and a failure that the policy chose.
    assert [(o.steps, o.terminated) for o in result.skills[0].outcomes if not o.success] == [(1, True)] * 2


def test_wrong_instructions_are_followed_and_fail(fakes):
    jobs = make_jobs(["seen"], ["reach", "pick", "push"], 2, controls=["wrong_instruction"])
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
        return seats.envs[1 + seat]

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
    assert (shown[0] == shown[0][:1]).all()
    for before, after in zip(shown, shown[1:], strict=False):
        assert (before[1:] == after[:-1]).all()
    assert (result.films[0].frames[1] == shown[1][-1]).all()


def test_episodes_report_as_they_end(fakes):
    ended = []
    jobs = make_jobs(["seen"], ["reach"], 3)
    run(fakes, jobs, seats=2, on_episode=lambda job, outcome: ended.append((job, outcome.seed)))
    assert sorted(ended, key=lambda pair: pair[1]) == [(job, job.seed) for job in jobs]


def test_environments_are_closed_when_the_policy_breaks():
    seats = Seats()

    class Broken:
        def act(self, images, instructions, mode="action"):
            raise RuntimeError("no logits")

    with pytest.raises(RuntimeError, match="no logits"):
        run_jobs(Broken(), make_jobs(["seen"], ["reach"], 2), image_size=SIZE, make_env=seats)
    assert all(env.world is None for env in seats.envs) and len(seats.envs) == 2


def test_jobs_are_the_product_in_order():
    jobs = make_jobs(["symbols", "seen"], ["place", "reach"], 2, 5, [None, "wrong_instruction"])
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
        make_jobs(*arguments)
