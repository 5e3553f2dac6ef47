"""The batcher on a clock of its own: who is served, when, with whom, and who is refused."""

import asyncio
import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.errors import UserError
from rt2_jax.serve.batcher import Batcher, BatcherLimits
from rt2_jax.serve.refusal import Refusal


class Model:
    """A model whose batch of n takes `base + n * each` seconds; it gives back what it is given."""

    def __init__(self, base=0.01, each=0.001):
        self.base, self.each, self.batches, self.failing = base, each, [], False

    async def __call__(self, group, payloads):
        self.batches.append((asyncio.get_running_loop().time(), group, list(payloads)))
        await asyncio.sleep(self.base + self.each * len(payloads))
        if self.failing:
            raise ValueError("a fault of the model")
        return payloads


class Outcomes:
    """Submits requests and keeps what became of them: payload -> (when, result or code)."""

    def __init__(self, model, limits):
        self.failures = []
        self.batcher = Batcher(model, limits, self.failures.append)
        self.serving = asyncio.create_task(self.batcher.serve())
        self.found, self.entered, self.order = {}, collections.defaultdict(list), collections.defaultdict(list)

    async def submit(self, payload, lane=0, group="g", within=1.0):
        loop = asyncio.get_running_loop()
        self.entered[lane].append(payload)
        try:
            served = await self.batcher.submit(lane, group, payload, loop.time() + within)
            self.found[payload] = (loop.time(), served.result, served)
            self.order[lane].append(payload)
        except Refusal as error:
            self.found[payload] = (loop.time(), error.code, None)

    async def later(self, seconds, *arguments, **fields):
        await asyncio.sleep(seconds)
        await self.submit(*arguments, **fields)


def outcomes(kit, model, requests, limits=BatcherLimits(window=0.0)):  # noqa: B008
    """What became of (when, payload, fields) requests."""

    async def run():
        told = Outcomes(model, limits)
        await asyncio.gather(*(told.later(when, payload, **fields) for when, payload, fields in requests))
        assert told.batcher.waiting == 0
        return told

    return kit.virtually(run())


REQUESTS = st.lists(
    st.tuples(
        st.floats(0, 0.2),
        st.fixed_dictionaries(
            {"lane": st.integers(0, 5), "group": st.sampled_from("gh"), "within": st.floats(0.001, 0.3)}
        ),
    ),
    max_size=60,
)


@settings(max_examples=100)
@given(REQUESTS, st.sampled_from([1, 2, 8]), st.floats(0, 0.01), st.floats(0.001, 0.05), st.floats(0, 0.01))
def test_each_request_gets_its_own_answer_in_time_or_is_refused(kit, drawn, most, window, base, each):
    model = Model(base, each)
    limits = BatcherLimits(max_batch=most, max_queue=20, max_lane=4, window=window)
    requests = [(when, number, fields) for number, (when, fields) in enumerate(drawn)]
    told = outcomes(kit, model, requests, limits)
    assert set(told.found) == set(range(len(requests)))
    for when, number, fields in requests:
        ended, result, served = told.found[number]
        assert result in (number, "busy", "stale")
        assert ended <= when + fields["within"] + 1e-6
        assert served is None or (0 <= served.queue_seconds <= fields["within"] and served.batch <= most)
    groups = [fields["group"] for _, _, fields in requests]
    ran = [payload for _, group, payloads in model.batches for payload in payloads]
    assert len(ran) == len(set(ran))
    assert all(len(payloads) <= most for _, _, payloads in model.batches)
    assert all(groups[payload] == group for _, group, payloads in model.batches for payload in payloads)
    for lane, order in told.order.items():  # a client's requests are answered in the order that they came in
        assert order == [number for number in told.entered[lane] if number in order]


def test_a_robot_alone_waits_for_nobody(kit):
    model = Model()
    requests = [(moment / 10, moment, {}) for moment in range(5)]
    outcomes(kit, model, requests, BatcherLimits(window=0.05))
    assert [when for when, _, _ in model.batches] == pytest.approx([when for when, _, _ in requests])


def test_a_batch_waits_a_window_for_the_others(kit):
    model = Model()
    first = [(0.0, "a0", {"lane": "a"}), (0.0, "b0", {"lane": "b"})]
    again = [(0.1, "a1", {"lane": "a"}), (0.102, "b1", {"lane": "b"})]
    late = [(0.2, "a2", {"lane": "a"}), (0.21, "b2", {"lane": "b"})]
    outcomes(kit, model, first + again + late, BatcherLimits(window=0.005))
    assert [sorted(payloads) for _, _, payloads in model.batches] == [["a0", "b0"], ["a1", "b1"], ["a2"], ["b2"]]
    assert [when for when, _, _ in model.batches][1:3] == pytest.approx([0.102, 0.205])


def test_a_client_that_sends_much_waits_behind_itself(kit):
    model = Model(base=0.01, each=0)
    greedy = [(0.0, ("greedy", number), {"lane": "greedy", "within": 9}) for number in range(40)]
    others = [(0.001, (lane, 0), {"lane": lane, "within": 9}) for lane in "abc"]
    outcomes(kit, model, greedy + others, BatcherLimits(max_batch=4, max_lane=64, window=0.0))
    second = [lane for lane, _ in model.batches[1][2]]
    assert sorted(second) == ["a", "b", "c", "greedy"]


def test_neither_group_starves_the_other(kit):
    async def run():
        told, model = Outcomes(model := Model(), BatcherLimits(max_batch=4, window=0.0)), model

        async def robot(lane, group):
            for step in range(20):
                await told.submit((lane, step), lane=lane, group=group)

        await asyncio.gather(*(robot(lane, "g" if lane < 6 else "h") for lane in range(8)))
        return model

    model = kit.virtually(run())
    groups = [group for _, group, _ in model.batches]
    assert max(len(run) for run in "".join(groups).replace("h", " ").split()) <= 3


def test_what_waits_is_bounded(kit):
    limits = BatcherLimits(max_batch=1, max_queue=3, max_lane=2, window=0.0)
    told = outcomes(kit, Model(), [(0.0, number, {"lane": 0}) for number in range(4)], limits)
    assert [told.found[number][1] for number in range(4)] == [0, 1, "busy", "busy"]
    told = outcomes(kit, Model(), [(0.0, number, {"lane": number}) for number in range(6)], limits)
    assert [result for _, result, _ in told.found.values()].count("busy") == 3


@pytest.mark.parametrize("within", [0.005, 0.015])
def test_a_late_request_is_refused_at_its_deadline(kit, within):
    """Whether its batch runs by then or it still waits."""
    model = Model(base=0.01, each=0)
    told = outcomes(
        kit, model, [(0.0, "first", {"within": 1}), (0.001, "second", {"lane": 1, "within": within - 0.001})]
    )
    assert told.found["first"][1] == "first"
    assert told.found["second"][:2] == (pytest.approx(within), "stale")
    alone = outcomes(kit, Model(base=1.0), [(0.0, "only", {"within": within})])
    assert alone.found["only"][:2] == (pytest.approx(within), "stale")


def test_a_fault_of_the_model_fails_its_batch_alone(kit):
    async def run():
        told = Outcomes(model := Model(), BatcherLimits(window=0.0))
        model.failing = True
        await told.submit("a")
        model.failing = False
        await told.submit("b")
        return told

    told = kit.virtually(run())
    assert (told.found["a"][1], told.found["b"][1]) == ("internal", "b")
    assert [str(error) for error in told.failures] == ["a fault of the model"]


def test_who_has_gone_is_not_served(kit):
    async def run():
        told = Outcomes(model := Model(), BatcherLimits(window=0.0))
        first = asyncio.create_task(told.submit("first"))
        gone = asyncio.create_task(told.submit("gone", lane=1))
        await asyncio.sleep(0.005)
        last = asyncio.create_task(told.submit("last", lane=2))
        gone_waiting = asyncio.create_task(told.submit("gone waiting", lane=3))
        await asyncio.sleep(0)
        gone.cancel()
        gone_waiting.cancel()
        await asyncio.gather(first, last)
        return told, model

    told, model = kit.virtually(run())
    assert set(told.found) == {"first", "last"}
    assert model.batches[-1][2] == ["last"]
    assert told.batcher.waiting == 0


def test_under_twice_the_load_it_serves_what_it_can(kit):
    """Requests that cannot be in time are refused before they cost a batch, so that others are in time."""
    base, each, within = 0.02, 0.005, 0.1
    capacity = 8 / (base + 8 * each)
    requests = [(number / (2 * capacity), number, {"lane": number, "within": within}) for number in range(2000)]
    limits = BatcherLimits(max_batch=8, max_queue=10_000, window=0.0)
    told = outcomes(kit, Model(base, each), requests, limits)
    served = [result for _, result, _ in told.found.values() if result != "stale"]
    assert len(served) > 0.8 * 0.5 * len(requests)


def test_robots_that_ask_again_at_once_fill_batches_even_where_the_deadline_is_tight(kit):
    """A batch takes four fifths of the deadline, so whoever comes early in one is too late for the next."""

    async def run():
        told = Outcomes(model := Model(base=0.4, each=0), BatcherLimits(max_batch=8, window=0.003))
        loop = asyncio.get_running_loop()

        async def robot(lane):
            step = 0
            while loop.time() < 20:
                step += 1
                await told.submit((lane, step), lane=lane, within=0.5)
                await asyncio.sleep(0.001)

        await asyncio.gather(*(robot(lane) for lane in range(32)))
        answers = [result for _, result, _ in told.found.values() if result != "stale"]
        return len(answers) / len(model.batches)

    assert kit.virtually(run()) > 6  # of eight in a batch


def test_a_slow_spell_is_forgotten(kit):
    """Batches that took longer than the deadline do not keep it from trying again."""

    async def run():
        told = Outcomes(model := Model(base=0.5, each=0), BatcherLimits(window=0.0))
        for number in range(10):
            await told.submit(("slow", number), within=0.1)
            await asyncio.sleep(0.5)
        model.base = 0.01
        for number in range(3):
            await asyncio.gather(*(told.submit(("quick", number, lane), lane=lane, within=0.1) for lane in range(4)))
            await asyncio.sleep(0.2)
        return told

    told = kit.virtually(run())
    results = [result for payload, (_, result, _) in told.found.items() if payload[0] == "quick"]
    assert results.count("stale") <= 4


def test_batches_are_powers_of_two():
    with pytest.raises(UserError, match="largest batch is 12"):
        BatcherLimits(max_batch=12)
