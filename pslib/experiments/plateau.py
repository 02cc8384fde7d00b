"""Has a run learned to re-identify?  A comparison counts only between models that have.

An embedding that tells nobody apart gives every row of the table and the queue the same probability 1 / (I + U), and
focal OIM the value ``(1 - 1/(I+U))^gamma log(I+U)``: the *uniform value*.  Training begins there exactly, the memory
being empty, but does not stay: rows fill, are older than the network that is compared with them, and the loss first
rises *above* the uniform value, by one or two, before it falls.  So "below the uniform value" is more than having left
the plateau, and a slow learner like the baseline can have learned a lot (its search on validation people says so) while
its loss has just come down to it.  Hence two signs, either of which suffices:

- **the loss is below the uniform value**: over the last tenth of the steps its mean is at least 5 % lower.  Chance does
  not do that: a step's loss scatters by a tenth of its value, the mean of 36 steps by less than two hundredths.
- **it has fallen, and search has gained**: the mean over the last tenth lies at least 10 % below the highest mean of
  any tenth, and on validation people mAP with ground-truth boxes at the end is at least twice that of the first point,
  an eighth into the schedule, when the learning rate is barely up.

A model with two branches has two such losses, and both must show a sign.

A two-stage model has a softmax over sampled classes (RSS) instead, whose uniform value is the logarithm of their
number.  Telling people from background lowers that loss at once, so what counts is its mean over labelled people,
which hardly moves by that.  A recipe that fine-tunes begins with a model that has learned, or not: its first
tenth may show the sign as well.  What it does to that model, be it harm, is what is compared.

A model that never learned shows neither: its loss hovers at the uniform value or above, and its search stays where the
warm start put it.  Both signs come from the record alone.
"""

import math

import numpy as np

from pslib.experiments.records import Record

__all__ = ["plateau_reason", "uniform_loss"]

TENTHS = 10
BELOW_UNIFORM = 0.05  # share of the uniform value
BELOW_HIGHEST = 0.10  # share of the highest mean over a tenth
GAIN = 2.0  # mAP at the end over mAP at the first point


def uniform_loss(identities: int, queue_size: int, focal_gamma: float = 2.0) -> float:
    """Focal OIM of an embedding that resembles all I + U rows alike.

    >>> round(uniform_loss(640, 128), 2), round(uniform_loss(640, 128, focal_gamma=0), 2)
    (6.63, 6.64)
    """
    rows = identities + queue_size
    return (1 - 1 / rows) ** focal_gamma * math.log(rows)


def plateau_reason(record: Record) -> str:
    """Why a run counts as not having learned, in words; empty if it has learned."""
    curves = _reid_losses(record)
    model = record.info["recipe"]["model"]
    if model.get("dense", model).get("oim_average") == "positives":
        return "its OIM is averaged over people without a name, too, which lowers it: the curve cannot tell"
    if not curves:
        return "no curve of the re-id loss is recorded"
    return "; ".join(filter(None, (_why_not(record, curve, uniform) for curve, uniform in curves)))


def _reid_losses(record: Record) -> list[tuple[np.ndarray, float]]:
    """The re-id losses of a run, each a curve over the steps, and its uniform value."""
    model, identities = record.info["recipe"]["model"], record.info["data"]["identities"]
    dense, roi = model.get("dense", model), model.get("roi", model)
    found = []
    for name, curve in record.arrays.items():
        if name not in ("loss/oim", "loss/roi_oim", "loss/rss_people"):
            continue
        # A batch that labelled nobody leaves nan, or an OIM of exactly 0, which no softmax has.
        curve = curve[np.isfinite(curve) & ((curve != 0) | (name == "loss/rss_people"))]
        if len(curve) < TENTHS:
            continue
        if name == "loss/oim":
            # The two-stage OIM has no focal factor.
            found.append((curve, uniform_loss(identities, dense["queue_size"], dense.get("focal_gamma", 0.0))))
        elif name == "loss/roi_oim":
            found.append((curve, uniform_loss(identities, roi["queue_size"], 0.0)))
        else:
            found.append((curve, math.log(min(model["rss_samples"] or identities + 1, identities + 1))))
    return found


def _why_not(record: Record, curve: np.ndarray, uniform: float) -> str:
    tenths = np.array([part.mean() for part in np.array_split(curve.astype(np.float64), TENTHS)])
    points = [entry["ground_truth_map"] for entry in record.info.get("validation", [])]
    start = record.info["recipe"].get("start")
    goes_on = start is not None and start["stage"] == record.info["recipe"]["stage"]
    below = min(tenths[-1], tenths[0] if goes_on else np.inf) <= (1 - BELOW_UNIFORM) * uniform
    fell = tenths[-1] <= (1 - BELOW_HIGHEST) * tenths.max()
    gained = len(points) > 1 and points[-1] >= GAIN * points[0]
    if below or (fell and gained):
        return ""
    said = f"re-id loss {tenths[-1]:.2f} at the end, {uniform:.2f} for a uniform guess"
    if len(points) > 1:
        said += f"; validation mAP with ground-truth boxes {points[0]:.1f} at first, {points[-1]:.1f} at the end"
    return said
