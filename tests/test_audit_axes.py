"""Images and videos: axes that must be local are, with the reach of their kernels, and others may mix."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from groundwork.errors import UserError
from norm_study.audit import audit_axes

SPACE = {"height": -2, "width": -1}
QUICK = {"times": 6, "redraws": 1, "attribution": False}


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def blamed(report):
    return [module.name for module in report.leaking_modules]


class Rows(nn.Module):
    """Subtracts each row's mean, so that widths mix and heights do not."""

    def forward(self, x):
        return x - x.mean(-1, keepdim=True)


def network(norm, kernel=(3, 5)):
    torch.manual_seed(0)
    padding = tuple(k // 2 for k in kernel)
    layers = [nn.Conv2d(3, 6, kernel, padding=padding), norm, nn.SiLU(), nn.Conv2d(6, 2, kernel, padding=padding)]
    return nn.Sequential(*layers)


def test_a_segmentation_network_is_local_by_its_kernels_along_both_axes():
    found = audit_axes(network(nn.BatchNorm2d(6)).eval(), images(2, 3, 20, 32), SPACE, **QUICK)
    assert found.verdict == "local"
    assert found.receptive_field == {"height": (2, 2), "width": (4, 4)}


def test_group_norm_leaks_along_both_axes():
    found = audit_axes(network(nn.GroupNorm(2, 6)), images(1, 3, 20, 32), SPACE, **QUICK)
    assert {axis: (report.verdict, blamed(report)) for axis, report in found.reports.items()} == {
        "height": ("leaks", ["1"]),
        "width": ("leaks", ["1"]),
    }
    assert found.verdict == "leaks"


def test_an_axis_that_is_not_named_may_mix():
    made = network(Rows())
    assert audit_axes(made, images(1, 3, 20, 32), {"height": -2}, **QUICK).verdict == "local"
    assert audit_axes(made, images(1, 3, 20, 32), SPACE, **QUICK).reports["width"].verdict == "leaks"


def test_frames_of_a_video_that_are_normed_one_by_one_do_not_see_each_other():
    class Frames(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.GroupNorm(2, 6)

        def forward(self, x):
            frames = x.transpose(1, 2)
            return self.norm(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)

    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv3d(2, 6, 3, padding=1), Frames(), nn.Conv3d(6, 2, (3, 1, 1), padding=(1, 0, 0)))
    found = audit_axes(made, images(1, 2, 16, 8, 12), {"time": 2, "width": -1}, **QUICK)
    assert {axis: report.verdict for axis, report in found.reports.items()} == {"time": "local", "width": "leaks"}
    assert found.receptive_field == {"time": (2, 2), "width": (1, 1)}


def test_diffusers_image_unet_leaks_by_its_norms_alone():
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        in_channels=1,
        out_channels=1,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    )
    found = audit_axes(unet, (images(1, 1, 64, 8), torch.tensor([3])), {"height": (-2, None)}, **QUICK)
    report = found.reports["height"]
    assert report.verdict == "leaks"
    assert {module.type for module in report.leaking_modules} == {"GroupNorm"}
    assert report.leakage.value > 1e-6


def test_no_axis_is_a_mistake():
    with pytest.raises(UserError, match="axes is empty"):
        audit_axes(network(Rows()), images(1, 3, 8, 8), {})
