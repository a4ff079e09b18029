"""SyncNet v2: features of a mouth and of audio that have a small distance if the two are in sync.

Chung and Zisserman, "Out of time: automated lip sync in the wild" (2016). Layers and keys match the published file.
Papers measure Sync-C and Sync-D (LSE-C and LSE-D) with SyncNet v2, see `scoring.sync`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import Conv2d, Conv3d, Linear

SIDE_PX = 224  # side of a face crop
VIDEO_FRAMES = 5  # frames of one window, at 25 fps
AUDIO_COLUMNS = 20  # MFCC columns of one window, 100 per second
CEPSTRA = 13  # coefficients of one MFCC column
FEATURES = 1024


class SyncNet(nn.Module):
    """The two encoders of SyncNet v2. They expect float32."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_convolution(Conv2d(1, 64, 3, padding=1)),
            nn.MaxPool2d(1),
            *_convolution(Conv2d(64, 192, 3, padding=1)),
            nn.MaxPool2d(3, (1, 2)),
            *_convolution(Conv2d(192, 384, 3, padding=1)),
            *_convolution(Conv2d(384, 256, 3, padding=1)),
            *_convolution(Conv2d(256, 256, 3, padding=1)),
            nn.MaxPool2d(3, 2),
            *_convolution(Conv2d(256, 512, (5, 4))),
        )
        self.netcnnlip = nn.Sequential(
            *_convolution(Conv3d(3, 96, (5, 7, 7), (1, 2, 2))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(Conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_convolution(Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_convolution(Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_convolution(Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(Conv3d(256, 512, (1, 6, 6))),
        )
        self.netfcaud, self.netfclip = _head(), _head()

    def video(self, crops: Tensor) -> Tensor:
        """Features of every window of consecutive crops.

        Only the first layer spans several frames. One pass over all crops therefore gives the same features as one
        pass for each window.

        Args:
            crops: (frames, 3, 224, 224), BGR, 0 to 255.

        Returns:
            (frames - 4, 1024).
        """
        return self.netfclip(self.netcnnlip(crops.movedim(0, 1)[None])[0, :, :, 0, 0].T)

    def audio(self, mfcc: Tensor) -> Tensor:
        """Features (n, 1024) of MFCC windows (n, 13, 20), see `scoring.mfcc`."""
        return self.netfcaud(self.netcnnaud(mfcc[:, None])[:, :, 0, 0])


def _convolution(layer: Conv2d | Conv3d) -> tuple[nn.Module, nn.Module, nn.Module]:
    norm = nn.BatchNorm2d if isinstance(layer, Conv2d) else nn.BatchNorm3d
    return layer, norm(layer.out_channels), nn.ReLU()


def _head() -> nn.Sequential:
    return nn.Sequential(Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), Linear(512, FEATURES))
