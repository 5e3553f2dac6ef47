"""The metrics of each kind of text, over a set of answers and their held-out targets. The first metric is the headline.

Answers may be any text; what cannot be read counts as wrong.
"""

from collections.abc import Sequence

import numpy as np

from rt2_jax.evaluate.results import Metric
from rt2_jax.evaluate.statistics import wilson_interval
from rt2_jax.evaluate.text_scores import IN_FRAME, exact_match, parse_detections, parse_location, token_f1

# "Within 5%" of the frame's side: 1.9 cm in the middle of the tabletop world's frame, about the size of an object.
LOCATION_RADIUS = 5.0
# Percent of the frame's side that is 3 cm in the middle of the tabletop world's frame, an episode's own limit.
DETECTION_RADIUS = 8.0


def share(name: str, hits: int, trials: int) -> Metric:
    """A share of independent trials, with Wilson's interval."""
    return Metric(name, hits / trials if trials else None, "fraction", wilson_interval(hits, trials))


def answers(given: Sequence[str], targets: Sequence[str]) -> tuple[Metric, ...]:
    """Short answers: exact match (but for case, punctuation and spaces), and mean token F1."""
    pairs = list(zip(given, targets, strict=True))
    f1 = float(np.mean([token_f1(answer, target) for answer, target in pairs]))
    hits = sum(exact_match(answer, target) for answer, target in pairs)
    return share("exact match", hits, len(pairs)), Metric("mean token F1", f1, "fraction", None)


def descriptions(given: Sequence[str], targets: Sequence[str]) -> tuple[Metric, ...]:
    """Captions and the rest of an alt-text: mean token F1 against the one held-out text, and exact match.

    Token F1 is a bag of words: it knows no word order, synonyms or grammar, and a caption that names other true things
    of the image scores low. It follows training well and is no measure of how good a caption is to a reader.
    """
    exact, f1 = answers(given, targets)
    return f1, exact


def locations(given: Sequence[str], targets: Sequence[str], most: int = IN_FRAME) -> tuple[Metric, ...]:
    """Pointing: share within `LOCATION_RADIUS` of the target, mean and median distance of the answers that are places.

    Distances are Euclidean, in percent of the frame's side.
    """
    distances = []
    for answer, target in zip(given, targets, strict=True):
        place, wanted = parse_location(answer, most), parse_location(target, most)
        if place is not None and wanted is not None:
            distances.append(float(np.hypot(place[0] - wanted[0], place[1] - wanted[1])))
    near = sum(distance <= LOCATION_RADIUS for distance in distances)
    mean = float(np.mean(distances)) if distances else None
    median = float(np.median(distances)) if distances else None
    return (
        share(f"within {LOCATION_RADIUS:.0f}% of the frame", near, len(given)),
        Metric("mean distance", mean, "percent of frame", None, higher_is_better=False),
        Metric("median distance", median, "percent of frame", None, higher_is_better=False),
        share("answers that are a place", len(distances), len(given)),
    )


def detections(given: Sequence[str], targets: Sequence[str], most: int = IN_FRAME) -> tuple[Metric, ...]:
    """Detection: recall and precision of named things within `DETECTION_RADIUS`, and recall of names alone.

    A thing is found when the answer has one of its name near it; names are unique within an image. Counts are over the
    things of all images together: they are not independent, so there is no interval.
    """
    found = named = wanted_count = given_count = 0
    for answer, target in zip(given, targets, strict=True):
        places, wanted = parse_detections(answer, most), parse_detections(target, most)
        given_count += len(places)
        wanted_count += len(wanted)
        for name, (x, y) in wanted.items():
            if name in places:
                named += 1
                found += bool(np.hypot(places[name][0] - x, places[name][1] - y) <= DETECTION_RADIUS)

    def rate(hits: int, trials: int) -> float | None:
        return hits / trials if trials else None

    return (
        Metric(f"recall within {DETECTION_RADIUS:.0f}% of the frame", rate(found, wanted_count), "fraction", None),
        Metric(f"precision within {DETECTION_RADIUS:.0f}% of the frame", rate(found, given_count), "fraction", None),
        Metric("things named, wherever", rate(named, wanted_count), "fraction", None),
    )
