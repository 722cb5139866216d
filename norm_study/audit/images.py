"""A figure: what one pixel of an image U-Net's output hears, untrained and trained, with its norms and without.

    python -m norm_study.audit.images --out docs/audit

The U-Net is diffusers', small and without attention, and denoises scattered digits of scikit-learn's set.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits
from torch import Tensor

from groundwork.files import save_figure, write_atomically
from groundwork.style import STYLE
from norm_study.audit.axes import AxesReport, audit_axes
from norm_study.audit.surgery import replace_norms

SIZE, LEVELS, LEVEL = 64, 100, 50
SPACE = {"height": (-2, None), "width": (-1, None)}


def image_unet(norm: str = "group") -> UNet2DModel:
    """An untrained U-Net of two levels, with GroupNorm or a norm over the channels of each pixel.

    Args:
        norm: ``group`` or ``channel``.
    """
    torch.manual_seed(0)
    unet = UNet2DModel(
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    )
    if norm != "group":
        replace_norms(unet, "channel")
    return unet


def scattered_digits(count: int, size: int, generator: torch.Generator) -> Tensor:
    """(count, 1, size, size) images from −1 to 1, each with digits of 8 × 8 pixels in random places."""
    digits = torch.as_tensor(load_digits().images, dtype=torch.float32) / 16
    images = torch.zeros(count, 1, size, size)
    for image in images:
        for which in torch.randint(len(digits), (size * size // 800,), generator=generator).tolist():
            y, x = torch.randint(size - 8, (2,), generator=generator).tolist()
            image[0, y : y + 8, x : x + 8] = torch.maximum(image[0, y : y + 8, x : x + 8], digits[which])
    return 2 * images - 1


def train(unet: UNet2DModel, steps: int, seed: int) -> float:
    """Trains the U-Net to predict the noise; returns the mean loss of the last fifth of the steps."""
    generator = torch.Generator().manual_seed(seed)
    schedule = DDPMScheduler(num_train_timesteps=LEVELS, beta_schedule="squaredcos_cap_v2")
    optimizer = torch.optim.Adam(unet.parameters(), lr=2e-3)
    losses = []
    for _ in range(steps):
        images = scattered_digits(8, SIZE, generator)
        noise = torch.randn(images.shape, generator=generator)
        at = torch.randint(LEVELS, (len(images),), generator=generator)
        loss = (unet(schedule.add_noise(images, noise, at), at).sample - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses[-max(1, steps // 5) :])) if losses else float("nan")


def noisy_images(seed: int) -> Tensor:
    """(1, 1, 64, 64) digits at the noise level that is audited."""
    generator = torch.Generator().manual_seed(seed)
    images = scattered_digits(1, SIZE, generator)
    schedule = DDPMScheduler(num_train_timesteps=LEVELS, beta_schedule="squaredcos_cap_v2")
    return schedule.add_noise(images, torch.randn(images.shape, generator=generator), torch.tensor([LEVEL]))


def influence(unet: UNet2DModel, images: Tensor) -> np.ndarray:
    """(64, 64) the size of the gradient of the output's middle pixel in every pixel of the input."""
    given = images.clone().requires_grad_()
    middle = unet(given, torch.tensor([LEVEL])).sample[0, 0, SIZE // 2, SIZE // 2]
    (gradient,) = torch.autograd.grad(middle, given)
    found: np.ndarray = gradient[0, 0].abs().numpy()
    return found


def draw(panels: list[tuple[str, np.ndarray, AxesReport]]) -> Figure:
    """One map per network, with the receptive field of the middle pixel as a frame."""
    figure = Figure(figsize=(3.1 * len(panels), 3.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for ax, (title, shown, found) in zip(axes, panels, strict=True):
        top = shown.max()
        mesh = ax.imshow(np.maximum(shown / top, 1e-8), norm=LogNorm(1e-8, 1), cmap="viridis")
        (up, down), (left, right) = found.receptive_field["height"], found.receptive_field["width"]
        corner = (SIZE // 2 - left - 0.5, SIZE // 2 - up - 0.5)
        ax.add_patch(Rectangle(corner, left + right + 1, up + down + 1, fill=False, ec="white", ls="--"))
        leakage = found.reports["width"].leakage
        said = "" if leakage is None else f", {100 * leakage.value:.2g} % along the width"
        ax.set(title=f"{title}\n{found.verdict}{said}", xticks=[], yticks=[])
    figure.colorbar(mesh, ax=axes, label="influence, over the largest")
    return figure


def main() -> None:
    """Trains, audits and draws."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="images.png and images.json go there")
    parser.add_argument("--steps", type=int, default=600, help="training steps")
    parser.add_argument("--seed", type=int, default=0, help="of training and audit")
    arguments = parser.parse_args()
    images, rows, panels = noisy_images(arguments.seed), [], []
    for norm, steps in (("group", 0), ("group", arguments.steps), ("channel", arguments.steps)):
        unet = image_unet(norm)
        loss = train(unet, steps, arguments.seed)
        unet.eval()
        found = audit_axes(unet, (images, torch.tensor([LEVEL])), SPACE, attribution=False, seed=arguments.seed)
        panels.append((f"{norm}, {'trained' if steps else 'untrained'}", influence(unet, images), found))
        row: dict[str, Any] = {"norm": norm, "steps": steps, "loss": None if np.isnan(loss) else loss}
        for axis, report in found.reports.items():
            row[axis] = report.to_dict()["summary"] | {"leakage_by_distance": None}
        rows.append(row)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        save_figure(draw(panels), arguments.out / "images.png", dpi=130, metadata={"Software": None})
    config = {
        "steps": arguments.steps,
        "seed": arguments.seed,
        "size": SIZE,
        "level": LEVEL,
        "levels": LEVELS,
    }
    write_atomically(arguments.out / "images.json", json.dumps({"config": config, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
