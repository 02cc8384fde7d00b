"""``pslib bench``: the speed ratios that README names, ours and the rival's measured in one run.

A ratio measured in one run on one machine means something on every machine; milliseconds do not.  The rivals
take turns, and the best of the repetitions counts: whatever else runs on the machine only ever adds time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ConvolutionTimes", "bench_deform_conv", "run"]


@dataclass(frozen=True)
class ConvolutionTimes:
    """Best seconds of one call: ``forward`` without gradient, ``both`` forward and backward with gradient."""

    forward: float
    both: float
    rival_forward: float
    rival_both: float

    @property
    def forward_ratio(self) -> float:
        """How many times faster than torchvision the forward pass is."""
        return self.rival_forward / self.forward

    @property
    def both_ratio(self) -> float:
        """How many times faster than torchvision forward and backward together are."""
        return self.rival_both / self.both


def bench_deform_conv(
    input_shape: tuple[int, int, int, int] = (8, 192, 20, 32), out_channels: int = 64, repeats: int = 5
) -> ConvolutionTimes:
    """Time :func:`pslib.ops.deform_conv2d` against torchvision's on the CPU, 3x3 taps, offsets of two cells.

    Uses torch's own number of threads.  Also checks, on the very data it times, that values and gradients agree.
    """
    import torch
    import torchvision.ops

    from pslib.ops import deform_conv2d

    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    batch, channels, height, width = input_shape
    image, offset = normal(*input_shape), 2 * normal(batch, 18, height, width)
    weight = normal(out_channels, channels, 3, 3) / (9 * channels) ** 0.5
    upstream = normal(batch, out_channels, height, width)

    def forward(operator: Callable) -> None:
        with torch.no_grad():
            operator(image, offset, weight, padding=1)

    def both(operator: Callable) -> list[torch.Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in (image, offset, weight)]
        out = operator(leaves[0], leaves[1], leaves[2], padding=1)
        out.backward(upstream)
        return [out.detach(), *(leaf.grad for leaf in leaves)]

    operators = (deform_conv2d, torchvision.ops.deform_conv2d)
    for ours, rival in zip(*(both(operator) for operator in operators), strict=True):
        torch.testing.assert_close(ours, rival, rtol=1e-4, atol=1e-4)
    times: dict[tuple, list[float]] = {}
    for _ in range(repeats):
        for step in (forward, both):
            for operator in operators:
                # Untimed first: the memory and caches that the other operator left behind are its cost, not ours.
                step(operator)
                start = time.perf_counter()
                step(operator)
                times.setdefault((step, operator), []).append(time.perf_counter() - start)
    return ConvolutionTimes(*(min(times[step, operator]) for operator in operators for step in (forward, both)))


def run(what: str = "all") -> None:
    """Print the figures of ``what``: "deform-conv", "evaluator", "browser" or "all"."""
    if what in ("deform-conv", "all"):
        _print_deform_conv()
    if what in ("evaluator", "all"):
        from pslib.evaluation.benchmark import benchmark_evaluator

        benchmark_evaluator()
    if what in ("browser", "all"):
        from pslib.evaluation.benchmark import benchmark_ranking

        benchmark_ranking()


def _print_deform_conv() -> None:
    import torch

    print(f"deform_conv2d, (8, 192, 20, 32) to 64 channels, 3x3, CPU, {torch.get_num_threads()} threads, best ms")
    times = bench_deform_conv()
    rows = (
        ("forward", times.forward, times.rival_forward, times.forward_ratio),
        ("forward + backward", times.both, times.rival_both, times.both_ratio),
    )
    for name, ours, rival, ratio in rows:
        print(f"  {name:<20} pslib {1e3 * ours:8.1f}   torchvision {1e3 * rival:8.1f}   {ratio:5.1f} times faster")
