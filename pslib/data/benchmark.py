"""How fast a scene is drawn, beside reading it back as a file (``pslib bench scene``)."""

import io
import time

import numpy as np
from PIL import Image

from pslib.data.drawing import jpeg
from pslib.data.people import sample_person
from pslib.data.pictures import to_pixels
from pslib.data.sampling import sample_scene
from pslib.data.scenes import render

__all__ = ["benchmark_scenes"]


def benchmark_scenes(scenes: int = 40, people: int = 3, repeats: int = 5) -> dict[str, float]:
    """Time drawing scenes of 144 x 224 px with ``people`` people and one passer-by, compressing and reading them.

    Prints one line and returns the medians over ``scenes`` (at least 3: the noise of two is remembered), each the best
    of ``repeats`` turns, in seconds of processor time: "draw", "compress" (to JPEG) and "read" (back).
    """
    drawn = []
    for seed in range(scenes):
        rng = np.random.default_rng(seed)
        drawn.append(sample_scene([(k, sample_person(rng)) for k in range(people)], rng, unlabelled=1))

    def seconds(work, given) -> float:
        start = time.process_time()
        work(given)
        return time.process_time() - start

    images = [render(scene).image for scene in drawn]
    files = [jpeg(image) for image in images]
    steps = {
        "draw": (render, drawn),
        "compress": (jpeg, images),
        "read": (lambda file: to_pixels(Image.open(io.BytesIO(file))), files),
    }
    turns: dict[str, list[list[float]]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, (work, inputs) in steps.items():
            turns[name].append([seconds(work, given) for given in inputs])
    measured = {name: float(np.median(np.min(taken, axis=0))) for name, taken in turns.items()}
    print(
        f"a scene of 144 x 224 px, {people} people and a passer-by, one core, best of {repeats}: "
        f"{1e3 * measured['draw']:.1f} ms (bar 10 ms), {measured['draw'] / measured['read']:.1f} times as long as "
        f"reading it from JPEG ({1e3 * measured['read']:.1f} ms; compressing {1e3 * measured['compress']:.1f} ms)"
    )
    return measured
