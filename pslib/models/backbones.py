"""Backbones: the networks that turn an image into the feature maps C3, C4 and C5.

Every backbone here answers to the same three things: ``forward(images) -> [C3, C4, C5]``, ``channels`` (how
many each map has) and ``strides`` (pixels per cell).  ResNets follow the papers (strides 8, 16, 32).  The tiny
network keeps the *ratio of person to cell* instead: its images are a seventh as wide, so its maps have strides
4, 8 and 16.

A two-stage model (IAN, Sec. III) cuts the network in two: ``trunk(images)`` is the map before the last stage, on
which proposals are made, and ``last_stage`` the module that goes over every region of interest.  VGG has only C3 and
C4 and no last stage (None): its second part are the two fully connected layers, which are not part of a backbone.

``deformable_stages`` (AlignPS, Table V) names the stages, of res3, res4 and res5, whose blocks get a modulated
deformable convolution: in place of a bottleneck's only 3x3 convolution, which also carries the stride in
torchvision's layout, and of the second where a block has two.  The second keeps the map's size and width, so it
costs less than two and, like the bottleneck's, stands once in every block.
"""

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from pslib.errors import UserError, require_choice
from pslib.models.deformable import deformable_copy

__all__ = [
    "BACKBONES", "STAGES", "ResidualBlock", "TinyBackbone", "TinyVGGBackbone", "ResNetBackbone", "VGGBackbone",
    "build_backbone",
]  # fmt: skip

BACKBONES = ("tiny", "tiny-deep", "tiny-vgg", "resnet18", "resnet34", "resnet50", "resnet101", "vgg11", "vgg16")
STAGES = ("res3", "res4", "res5")  # what computes C3, C4 and C5


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a short cut, as in He et al., "Deep Residual Learning" (Fig. 2).

    Input (B, in_channels, H, W), output (B, out_channels, H/stride, W/stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class TinyBackbone(nn.Module):
    """A residual network small enough to train in a minute on two CPU cores.

    Images (B, 3, H, W) become C3 (B, 32, H/4, W/4), C4 (B, 64, H/8, W/8) and C5 (B, 128, H/16, W/16); H and W
    must be multiples of 16.  ``stage4_blocks`` deepens the middle stage, as ResNet-101's beside ResNet-50: "tiny-deep".
    With ``frozen`` stem and first stage are not trained and every batch normalisation is a constant, as in
    :class:`ResNetBackbone`.

    >>> [tuple(level.shape) for level in TinyBackbone()(torch.zeros(1, 3, 48, 64))]
    [(1, 32, 12, 16), (1, 64, 6, 8), (1, 128, 3, 4)]
    """

    strides = (4, 8, 16)
    channels = (32, 64, 128)

    def __init__(self, deformable_stages: Sequence[str] = (), stage4_blocks: int = 2, frozen: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        )
        self.stage3 = nn.Sequential(ResidualBlock(16, 32, stride=2), ResidualBlock(32, 32))
        self.stage4 = nn.Sequential(
            ResidualBlock(32, 64, stride=2), *(ResidualBlock(64, 64) for _ in range(stage4_blocks - 1))
        )
        self.stage5 = nn.Sequential(ResidualBlock(64, 128, stride=2), ResidualBlock(128, 128))
        for stage in _chosen((self.stage3, self.stage4, self.stage5), deformable_stages):
            for block in stage:
                block.body[3] = deformable_copy(block.body[3])
        if frozen:
            _hold(self.stem, self.stage3)
            _norms_as_constants(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        c3 = self.stage3(self.stem(images))  # (B, 32, H/4, W/4)
        c4 = self.stage4(c3)  # (B, 64, H/8, W/8)
        return [c3, c4, self.stage5(c4)]

    def trunk(self, images: Tensor) -> Tensor:
        """The map before the last stage, C4: (B, 64, H/8, W/8)."""
        return self.stage4(self.stage3(self.stem(images)))

    @property
    def last_stage(self) -> nn.Module:
        """C4, or regions cut out of it, (R, 64, h, w) to (R, 128, h/2, w/2)."""
        return self.stage5


class TinyVGGBackbone(nn.Module):
    """Plain 3x3 convolutions and max pooling without short cuts: what VGG16 is beside a ResNet, at the tiny size.

    Images (B, 3, H, W) become C3 (B, 32, H/4, W/4) and C4 (B, 64, H/8, W/8); H and W must be multiples of 8.  Unlike
    VGG16 of 2014 every convolution has batch normalisation (torchvision's ``vgg16_bn``): without it so short a
    schedule would compare how fast networks start, not what dropout in the fully connected layers does.  ``frozen`` as
    in :class:`VGGBackbone`.

    >>> [tuple(level.shape) for level in TinyVGGBackbone()(torch.zeros(1, 3, 48, 64))]
    [(1, 32, 12, 16), (1, 64, 6, 8)]
    """

    strides = (4, 8)
    channels = (32, 64)
    last_stage = None

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        # The first convolution has stride 2 where VGG would keep the full size, the costliest map of all.
        self.stem = _plain(3, 16, stride=2)
        self.stage3 = nn.Sequential(nn.MaxPool2d(2), _plain(16, 32), _plain(32, 32))
        self.stage4 = nn.Sequential(nn.MaxPool2d(2), _plain(32, 64), _plain(64, 64), _plain(64, 64))
        if frozen:
            _hold(self.stem, self.stage3)
            _norms_as_constants(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        c3 = self.stage3(self.stem(images))  # (B, 32, H/4, W/4)
        return [c3, self.stage4(c3)]

    def trunk(self, images: Tensor) -> Tensor:
        """The last map, C4: (B, 64, H/8, W/8)."""
        return self.forward(images)[-1]


class ResNetBackbone(nn.Module):
    """A torchvision ResNet read out after layer2, layer3 and layer4: C3, C4, C5 at strides 8, 16, 32.

    ``weights`` is torchvision's name of a set of weights (``"IMAGENET1K_V1"``) or None.  With ``frozen`` the stem
    and layer1 are not trained and every batch normalisation is a constant, as AlignPS's released code trains
    it; without, all of the network learns, which random or warm-start weights need.  Weights carry over to
    ``deformable_stages``.
    """

    strides = (8, 16, 32)

    def __init__(
        self,
        name: str = "resnet50",
        weights: str | None = None,
        frozen: bool = True,
        deformable_stages: Sequence[str] = (),
    ):
        super().__init__()
        norm = FrozenBatchNorm2d if frozen else nn.BatchNorm2d
        self.body = _of_torchvision(name, weights, norm_layer=norm)
        stages = (self.body.layer2, self.body.layer3, self.body.layer4)
        self.channels = tuple(stage[0].downsample[0].out_channels for stage in stages)
        self.body.fc = nn.Identity()
        for stage in _chosen(stages, deformable_stages):
            for block in stage:
                block.conv2 = deformable_copy(block.conv2)
        if frozen:
            _hold(self.body.conv1, self.body.layer1)

    def forward(self, images: Tensor) -> list[Tensor]:
        body = self.body
        c2 = body.layer1(body.maxpool(body.relu(body.bn1(body.conv1(images)))))  # (B, C2, H/4, W/4)
        c3 = body.layer2(c2)
        c4 = body.layer3(c3)
        return [c3, c4, body.layer4(c4)]

    def trunk(self, images: Tensor) -> Tensor:
        """The map before the last stage, C4: (B, C4, H/16, W/16)."""
        body = self.body
        c2 = body.layer1(body.maxpool(body.relu(body.bn1(body.conv1(images)))))
        return body.layer3(body.layer2(c2))

    @property
    def last_stage(self) -> nn.Module:
        """C4, or regions cut out of it, (R, C4, h, w) to (R, C5, h/2, w/2)."""
        return self.body.layer4


class VGGBackbone(nn.Module):
    """torchvision's VGG without its last pooling and its classifier: maps at strides 8 and 16, 512 channels each.

    ``"vgg16"`` is the papers'.  ``"vgg11"``, the small profile's, has batch normalisation, as "tiny-vgg" and for the
    same reason.  ``weights`` as in :class:`ResNetBackbone`.  With ``frozen`` the convolutions before the second pooling
    are not trained, as in Fast R-CNN (Girshick 2015, Sec. 4.5: conv3_1 and up learn); batch normalisations are
    constant.
    """

    strides = (8, 16)
    channels = (512, 512)
    last_stage = None

    def __init__(self, name: str = "vgg16", weights: str | None = None, frozen: bool = False):
        super().__init__()
        layout = {"vgg11": "vgg11_bn", "vgg16": "vgg16"}[name]
        layers = _of_torchvision(layout, weights).features
        pools = [place for place, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        self.body, self.last_block = layers[: pools[3]], layers[pools[3] : pools[4]]
        if frozen:
            _hold(self.body[: pools[1]])
            _norms_as_constants(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.body(images)  # (B, 512, H/8, W/8)
        return [fine, self.last_block(fine)]

    def trunk(self, images: Tensor) -> Tensor:
        """The last map: (B, 512, H/16, W/16)."""
        return self.last_block(self.body(images))


def build_backbone(
    name: str, weights: str | None = None, frozen: bool = False, deformable_stages: Sequence[str] = ()
) -> nn.Module:
    """The backbone called ``name``, one of :data:`BACKBONES`; see the classes for the other arguments."""
    require_choice("backbone", name, BACKBONES)
    if name in ("tiny", "tiny-deep"):
        # As many blocks as keep a step of a two-stage model within 1.4 times that of "tiny".
        return TinyBackbone(deformable_stages, stage4_blocks=6 if name == "tiny-deep" else 2, frozen=frozen)
    if name in ("tiny-vgg", "vgg11", "vgg16"):
        if deformable_stages:
            raise UserError(f"the backbone {name} has no deformable stages: leave deformable_stages empty.")
        return TinyVGGBackbone(frozen) if name == "tiny-vgg" else VGGBackbone(name, weights, frozen)
    return ResNetBackbone(name, weights, frozen, deformable_stages)


def _plain(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _of_torchvision(name: str, weights: str | None, **arguments: object) -> nn.Module:
    """torchvision's model; UserError for weights that it does not offer."""
    if weights is not None:
        offered = [one.name for one in torchvision.models.get_model_weights(name)]
        require_choice(f"set of weights of {name}", weights, ["DEFAULT", *dict.fromkeys(offered)])
    return torchvision.models.get_model(name, weights=weights, **arguments)


def _hold(*modules: nn.Module) -> None:
    """Leave the weights of ``modules`` out of training."""
    for module in modules:
        module.requires_grad_(False)


def _norms_as_constants(module: nn.Module) -> None:
    """Put constants of the same names in place of all batch normalisations in ``module``."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            constant = FrozenBatchNorm2d(child.num_features, child.eps)
            constant.load_state_dict(child.state_dict())  # it may come with pretrained statistics
            setattr(module, name, constant)
        else:
            _norms_as_constants(child)


def _chosen(stages: Sequence[nn.Module], names: Sequence[str]) -> list[nn.Module]:
    """Those of the stages res3, res4 and res5 that ``names`` asks for."""
    return [stages[STAGES.index(require_choice("backbone stage", name, STAGES))] for name in names]
