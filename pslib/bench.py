"""``pslib bench``: the speed ratios that README names, ours and the rival's measured in one run.

A ratio measured in one run on one machine means something on every machine; milliseconds do not.  The rivals
take turns, and the best of the repetitions counts: whatever else runs on the machine only ever adds time.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CenterStep", "ConvolutionTimes", "activation_bytes", "bench_center_loss", "bench_deform_conv", "run"]


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


@dataclass(frozen=True)
class CenterStep:
    """One step of center loss: best seconds; bytes of the table, of the ``seen`` flags, and of all the step makes."""

    identities: int
    seconds: float
    table_bytes: int
    flag_bytes: int
    step_bytes: int


def bench_center_loss(
    identities: Sequence[int] = (1_000, 10_000, 100_000, 1_000_000), dim: int = 512, batch: int = 128, repeats: int = 30
) -> list[CenterStep]:
    """Time loss, backward pass and update of :mod:`pslib.losses.center` on the CPU for tables of several sizes.

    Every step has other features and identities, as in training, so a large table's rows come from memory and not
    from the cache.  Uses torch's own number of threads.  ``step_bytes`` adds up every tensor that one step makes, which
    is more than is ever held at once.
    """
    import torch

    from pslib.losses.center import Centers, center_loss

    generator = torch.Generator().manual_seed(0)

    def step(centers: Centers) -> float:
        features = torch.randn(batch, dim, generator=generator).requires_grad_()
        labels = torch.randint(len(centers.centers), (batch,), generator=generator)
        start = time.perf_counter()
        center_loss(features, labels, centers.centers, centers.seen).backward()
        centers.update(features, labels)
        return time.perf_counter() - start

    tables = {size: Centers(size, dim) for size in identities}
    for centers in tables.values():
        # Written once, the table is really in memory, not merely promised; everybody seen, every row counts.
        centers.centers.fill_(0.1)
        centers.seen.fill_(True)
    times: dict[int, list[float]] = {size: [] for size in identities}
    for _ in range(repeats):
        for size, centers in tables.items():
            step(centers)
            times[size].append(step(centers))
    measured = []
    for size, centers in tables.items():
        with _bytes_made() as made:
            step(centers)
        # The batch itself is given, not made: (batch, dim) float32 and (batch,) int64.
        own = made.total - batch * (4 * dim + 8)
        measured.append(CenterStep(size, min(times[size]), centers.centers.nbytes, centers.seen.nbytes, own))
    return measured


def _bytes_made():
    """A context whose ``total`` grows by the bytes of every tensor that an operation in it newly makes."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Counter(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            result = operator(*args, **(kwargs or {}))
            given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            # What an operation writes in place, or returns as a view, lies where its input lies.
            made = {t.untyped_storage().data_ptr(): t for t in tree_leaves(result) if isinstance(t, Tensor)}
            self.total += sum(t.untyped_storage().nbytes() for place, t in made.items() if place not in given)
            return result

    return Counter()


def activation_bytes(network: "nn.Module", input_shape: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """Bytes of the float32 outputs of all convolutions, batch normalizations and poolings, and the output's shape.

    The backward pass needs them all (a ReLU in place needs no more).  Counted from shapes alone: ``network`` is on
    torch's "meta" device, on which nothing is computed or held.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, device="meta"), torch.nn.ReLU(inplace=True))
    >>> activation_bytes(network, (1, 3, 10, 10))
    (2048, (1, 8, 8, 8))
    """
    import torch
    from torch import nn

    sizes: list[int] = []
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d)
    hooks = [
        module.register_forward_hook(lambda module, given, output: sizes.append(4 * output.numel()))
        for module in network.modules()
        if isinstance(module, kinds)
    ]
    output = network(torch.empty(tuple(input_shape), device="meta"))
    for hook in hooks:
        hook.remove()
    return sum(sizes), tuple(output.shape)


def run(what: str = "all") -> None:
    """Print the figures of ``what``: "deform-conv", "evaluator", "browser", "scene", "center-loss" or "all"."""
    if what in ("deform-conv", "all"):
        _print_deform_conv()
    if what in ("evaluator", "all"):
        from pslib.evaluation.benchmark import benchmark_evaluator

        benchmark_evaluator()
    if what in ("browser", "all"):
        from pslib.evaluation.benchmark import benchmark_ranking

        benchmark_ranking()
    if what in ("scene", "all"):
        from pslib.evaluation.benchmark import benchmark_scenes

        benchmark_scenes()
    if what in ("center-loss", "all"):
        # Last: its table of 2 GB would count in the peak memory that the evaluator's benchmark reads.
        _print_center_loss()


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


def _print_center_loss() -> None:
    import torch
    import torchvision

    print(f"center loss: loss, backward, update; 512-d, batch 128, CPU, {torch.get_num_threads()} threads, best ms")
    print("  identities       ms   of first   table MB   seen flags MB   made in a step MB")
    measured = bench_center_loss()
    for line in measured:
        print(
            f"  {line.identities:>10,} {1e3 * line.seconds:8.2f} {line.seconds / measured[0].seconds:10.2f} "
            f"{line.table_bytes / 1e6:10.1f} {line.flag_bytes / 1e6:15.3f} {line.step_bytes / 1e6:19.2f}"
        )
    print("  bar: at most 1.50 of the first; beside the table nothing that grows but a flag of one byte an identity")
    with torch.device("meta"):
        network = torchvision.models.resnet101()
    *trunk, last_stage, _, _ = network.children()
    scene, _ = activation_bytes(torch.nn.Sequential(*trunk), (1, 3, 600, 1000))
    boxes, _ = activation_bytes(last_stage, (128, 1024, 7, 7))
    weights = sum(4 * weight.numel() for stage in (*trunk, last_stage) for weight in stage.parameters())
    centers, classifier = 4 * 5532 * 256, 3 * 4 * 5533 * 256
    print("do the centers fill the memory?  float32, counted from shapes; the image's size and the number of boxes are")
    print("  Faster R-CNN's usual ones, the paper names neither")
    for name, size in (
        ("centers, 5,532 x 256", centers),
        ("classifier of 5,533 classes, with gradients and momentum", classifier),
        ("weights of ResNet-101's stages, with gradients and momentum", 3 * weights),
        ("activations of the stages before the last, one image of 600 x 1000 pixels", scene),
        ("activations of the last stage, 128 boxes of 7 x 7 cells", boxes),
    ):
        print(f"  {name:<74} {size / 1e6:8.1f} MB")
    total = centers + classifier + 3 * weights + scene + boxes
    print(f"  the centers' share of all these: {100 * centers / total:.2f} %")
