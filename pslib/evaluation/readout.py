"""Where in the network is identity to be read?  Re-id from the features of every layer behind the neck.

AlignPS, Sec. III-B, argues that detection layers do away with what tells people apart, since all people are one class
to them ("task misalignment"), and orders its tasks accordingly (Fig. 8, Table III).  Here every layer is searched with,
nothing being trained for it: the features at the cell of each annotated box, standardised, compared by cosine.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from pslib.data.annotations import PersonSearchSet
from pslib.evaluation.detections import Detections
from pslib.evaluation.embed import ground_truth_queries
from pslib.evaluation.gallery import embed_gallery, similarity_of
from pslib.evaluation.search import search
from pslib.models.alignps import AlignPS, rows_of_cells
from pslib.models.batching import batch_images
from pslib.models.fcos import tower

__all__ = ["ReadOut", "readout_layers", "fresh_towers", "layer_features", "layer_search"]


def readout_layers(model: AlignPS, beside: Mapping[str, nn.Module] | None = None) -> dict[str, list[nn.Module]]:
    """Modules behind the neck by layer name, in order; several modules are the same layer on several levels.

    ``neck``, then ``class 1``, ``class 2`` ..., ``box 1`` ..., and ``re-id 1`` ... where re-id has a tower of its own;
    last the layers of the towers ``beside`` (:func:`fresh_towers`).
    """
    layers: dict[str, list[nn.Module]] = {"neck": list(model.neck.output.values())}
    towers = {"class": model.head.class_tower, "box": model.head.box_tower, "re-id": model.reid_tower}
    for name, layers_of in (towers | dict(beside or {})).items():
        for number, layer in enumerate((m for m in layers_of.modules() if isinstance(m, nn.ReLU)), start=1):
            layers[f"{name} {number}"] = [layer]
    return layers


def fresh_towers(model: AlignPS, count: int, seed: int = 0) -> dict[str, nn.Sequential]:
    """``count`` untrained towers as deep and as wide as the class tower: ``random_0``, ``random_1`` ...

    They are what the class tower was before its first step, so they show what random layers of that size lose.

    >>> from pslib.models.alignps import AlignPSConfig
    >>> list(fresh_towers(AlignPS(AlignPSConfig(), num_identities=2), 2))
    ['random_0', 'random_1']
    """
    config = model.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = [tower(config.channels, config.head_channels, config.head_depth).eval() for _ in range(count)]
    return {f"random_{number}": one for number, one in enumerate(made)}


class ReadOut:
    """A model to evaluate that writes down, on the way, what every layer behind its neck says of the boxes it embeds.

    Args:
        model: who answers; its answers are not touched.
        beside: towers (:func:`fresh_towers`) that are handed what the class tower is handed, and read like it.

    :func:`pslib.evaluation.gallery.embed_gallery` runs it over a set in place of the model; :meth:`search` is for then.
    """

    def __init__(self, model: AlignPS, beside: Mapping[str, nn.Module] | None = None):
        self.model, self.beside, self.similarity = model, dict(beside or {}), similarity_of(model)
        self.features: list[dict[str, Tensor]] = []  # of each batch, by layer, (N, C)

    @torch.no_grad()
    def detect_and_embed(
        self, images: Sequence[Tensor], boxes: Sequence[Tensor]
    ) -> tuple[list[dict[str, Tensor]], list[Tensor]]:
        """As :meth:`AlignPS.detect_and_embed`; ``features`` gets one entry more."""
        model, batch = self.model, batch_images(images, multiple=self.model.backbone.strides[-1])
        with self._listening() as seen:
            dense = model.dense(batch)
        counts = [len(one) for one in boxes]
        cells = torch.cat([model.best_cells(dense, image, one) for image, one in enumerate(boxes)])
        rows = torch.arange(len(boxes)).repeat_interleave(torch.tensor(counts)).to(cells.device)
        features = {name: rows_of_cells(maps)[rows, cells] for name, maps in seen.items()}
        features["embedding"] = model.normalize(dense.embeddings[rows, cells])
        self.features.append({name: layer.cpu() for name, layer in features.items()})
        return model.detect(dense, batch.sizes), list(features["embedding"].split(counts))

    @contextmanager
    def _listening(self) -> Iterator[dict[str, list[Tensor]]]:
        """The maps that every layer puts out within, a list of levels each."""
        seen: dict[str, list[Tensor]] = {}

        def run_beside(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            for one in self.beside.values():
                one(*inputs)

        handles = [
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: seen.setdefault(name, []).append(output)
            )
            for name, modules in readout_layers(self.model, self.beside).items()
            for module in modules
        ]
        handles.append(self.model.head.class_tower.register_forward_hook(run_beside))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def search(self, data: PersonSearchSet, protocol: str) -> dict[str, np.ndarray]:
        """Average precision (Q,) of every query with ground-truth boxes, by each layer of what was read of ``data``.

        Each channel is standardised over the set's boxes: features behind a ReLU are all positive and would share one
        direction.  ``embedding`` is compared as it is.
        """
        found = {}
        for name in self.features[0]:
            features = torch.cat([part[name] for part in self.features]).float()
            if name != "embedding":
                features = (features - features.mean(0)) / features.std(0).clamp(min=1e-6)
            gallery = Detections.from_ground_truth(data.frames, nn.functional.normalize(features, dim=1).numpy())
            queries = ground_truth_queries(data.protocols[protocol], gallery)
            found[name] = search(data.protocols[protocol], gallery, queries, num_frames=len(data.frames)).ap
        return found


def layer_features(
    model: AlignPS, images: Sequence[Tensor], boxes: Sequence[Tensor], beside: Mapping[str, nn.Module] | None = None
) -> dict[str, Tensor]:
    """Features (N, C) of all N boxes at every layer, and under ``embedding`` what the model itself compares.

    ``images`` are (3, H, W) tensors, ``boxes`` one (n, 4) xyxy tensor an image in px.  Each box is read at the cell it
    is embedded from (:meth:`AlignPS.best_cells`), on the level of that cell.  ``beside`` as :class:`ReadOut` has it.
    """
    reader = ReadOut(model, beside)
    reader.detect_and_embed(images, boxes)
    return reader.features[0]


def layer_search(
    model: AlignPS,
    data: PersonSearchSet,
    protocol: str,
    test_size: tuple[int, int] | None = None,
    beside: Mapping[str, nn.Module] | None = None,
) -> dict[str, np.ndarray]:
    """:meth:`ReadOut.search` for a set that ``model`` has still to be run over."""
    reader = ReadOut(model, beside)
    embed_gallery(reader, data, test_size=test_size, desc="read out layers")
    return reader.search(data, protocol)
