"""PyTorch's counterparts of our networks and steps; PyTorch is imported where they are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

# Widths and numbers of the blocks of ResNet-50's four stages.
_RESNET_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


def classifier(name: str, classes: int) -> nn.Module:
    """A network of CAM logits, [B, 3, S, S] -> [B, L, G, G]."""
    from torch import nn

    backbone, channels = _resnet50() if name == "resnet50" else _efficientnet_lite0()
    return nn.Sequential(backbone, nn.Conv2d(channels, classes, 1))


def stepper(
    name: str,
    classes: int,
    size: int,
    count: int,
    *,
    channels_last: bool = True,
    bfloat16: bool = False,
    frozen: bool = False,
) -> Callable[[], float]:
    """A training step that assumes unknown labels negative, with Adam; returns its images.

    Args:
        name: "resnet50" or "efficientnet_lite0".
        classes: L.
        size: S, of the images.
        count: B, images a step.
        channels_last: the memory format that suits convolutions on a CPU; else PyTorch's default.
        bfloat16: whether forward runs under autocast.
        frozen: whether only the head is trained.
    """
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = classifier(name, classes).train()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)
    images = torch.rand(count, 3, size, size).to(memory_format=layout)
    labels = nn.functional.one_hot(torch.arange(count) % classes, classes).float()
    if frozen:
        model[0].requires_grad_(False).eval()
    trained = [x for x in model.parameters() if x.requires_grad]
    optimizer = torch.optim.Adam(trained, 1e-5)
    loss_of = nn.BCEWithLogitsLoss()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            maps = model(images)
        loss = loss_of(maps.float().mean((2, 3)), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        return count

    return step


def predictor(name: str, classes: int, size: int, count: int) -> Callable[[], float]:
    """Inference in eager mode, channels last; returns its images."""
    import torch

    model = classifier(name, classes).eval().to(memory_format=torch.channels_last)
    images = torch.rand(count, 3, size, size).to(memory_format=torch.channels_last)

    def run() -> float:
        with torch.inference_mode():
            model(images).numpy()
        return count

    return run


def _convolution(
    inner: int, outer: int, kernel: int, stride: int, groups: int = 1
) -> list[nn.Module]:
    from torch import nn

    one = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [one, nn.BatchNorm2d(outer)]


def _residual(body: list[nn.Module], short: nn.Module, last: nn.Module) -> nn.Module:
    from torch import nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.short, self.last = nn.Sequential(*body), short, last

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.last(self.body(x) + self.short(x))
            return found

    return Residual()


def _resnet50() -> tuple[nn.Module, int]:
    from torch import nn

    relu = nn.ReLU(inplace=True)
    layers: list[nn.Module] = [*_convolution(3, 64, 7, 2), relu, nn.MaxPool2d(3, 2, 1)]
    inner = 64
    for number, (width, blocks) in enumerate(_RESNET_STAGES):
        for block in range(blocks):
            stride = 2 if number and not block else 1
            body = [
                *_convolution(inner, width, 1, stride), relu, *_convolution(width, width, 3, 1),
                relu, *_convolution(width, 4 * width, 1, 1),
            ]  # fmt: skip
            short: nn.Module = nn.Identity()
            if inner != 4 * width:
                short = nn.Sequential(*_convolution(inner, 4 * width, 1, stride))
            layers.append(_residual(body, short, nn.ReLU(inplace=True)))
            inner = 4 * width
    return nn.Sequential(*layers), inner


def _efficientnet_lite0() -> tuple[nn.Module, int]:
    from torch import nn

    from spml_tf.networks.efficientnet_lite import STAGES

    relu = nn.ReLU6(inplace=True)
    layers: list[nn.Module] = [*_convolution(3, 32, 3, 2), relu]
    inner = 32
    for repeats, kernel, first_stride, expansion, outer in STAGES:
        for block in range(repeats):
            stride, wide = first_stride if block == 0 else 1, expansion * inner
            body = [*_convolution(inner, wide, 1, 1), relu] if expansion > 1 else []
            body += [*_convolution(wide, wide, kernel, stride, groups=wide), relu]
            body += _convolution(wide, outer, 1, 1)
            if stride == 1 and inner == outer:
                layers.append(_residual(body, nn.Identity(), nn.Identity()))
            else:
                layers += body
            inner = outer
    return nn.Sequential(*layers, *_convolution(inner, 1280, 1, 1), relu), 1280
