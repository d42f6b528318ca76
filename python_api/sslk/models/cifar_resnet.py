"""The compact residual network for 32 x 32 images whose pre-trained weights ship with the package."""

from collections.abc import Sequence

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016), ending in a ReLU.

    `[N, in_channels, H, W]` -> `[N, out_channels, ceil(H / stride), ceil(W / stride)]`.
    The shortcut is the identity, or a 1 x 1 convolution where the shape changes.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        # Not in place: the sum before the last ReLU is what GradCAM and hooks want to see unchanged.
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Residual network with a 3 x 3 stem and no max-pooling, for images of about 32 x 32 pixels.

    Args:
        channels: Width of each stage; the last one is the width D of the representation.
            Every stage after the first halves the resolution.
        blocks: Basic blocks per stage.

    Attributes:
        num_features: D, the width of the representation.

    Raises:
        ValueError: If `channels` is empty, a width is not positive, or `blocks` is not positive.

    The last feature map comes out of a ReLU, so every feature is non-negative.

    >>> import torch
    >>> model = CifarResNet().eval()
    >>> model.num_features
    256
    >>> model(torch.zeros(2, 3, 32, 32)).shape, model.forward_features(torch.zeros(2, 3, 32, 32)).shape
    (torch.Size([2, 256]), torch.Size([2, 256, 4, 4]))
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 256), blocks: int = 1) -> None:
        super().__init__()
        if not channels or min(channels) < 1 or blocks < 1:
            raise ValueError(f"channels and blocks must be positive, got channels={tuple(channels)}, blocks={blocks}")
        self.num_features = channels[-1]
        self.stem = nn.Sequential(nn.Conv2d(3, channels[0], 3, padding=1, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU())
        self.stages = nn.Sequential()
        width = channels[0]
        for stage, out_channels in enumerate(channels):
            first_stride = 1 if stage == 0 else 2
            self.stages.append(
                nn.Sequential(
                    BasicBlock(width, out_channels, first_stride),
                    *(BasicBlock(out_channels, out_channels) for _ in range(blocks - 1)),
                )
            )
            width = out_channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map, `[N, 3, H, W]` -> `[N, D, h, w]`; 32 x 32 images give 4 x 4 maps by default."""
        return self.stages(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        """The representation: the global average of the last feature map, `[N, 3, H, W]` -> `[N, D]`."""
        return self.forward_features(x).mean(dim=(2, 3))
