import json
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet1DModel
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import nn

from groundwork.errors import UserError
from planner.config import ModelConfig, check_horizon
from planner.norms import NORM_KINDS, WHOLE_KINDS, mixes_time
from planner.unet import TemporalUNet
from planner.unet_files import load_unet

WEIGHTS = "diffusion_pytorch_model.safetensors"


def reference(widths, channels=4):
    """diffusers' temporal configuration, as in its released Diffuser checkpoints."""
    torch.manual_seed(0)
    return UNet1DModel(
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        down_block_types=("DownResnetBlock1D",) * len(widths),
        up_block_types=("UpResnetBlock1D",) * (len(widths) - 1),
        mid_block_type="MidResTemporalBlock1D",
        out_block_type="OutConv1DBlock",
        time_embedding_type="positional",
        use_timestep_embedding=True,
        flip_sin_to_cos=False,
        freq_shift=1.0,
        act_fn="mish",
        norm_num_groups=8,
        layers_per_block=1,
        downsample_each_block=False,
    )


@pytest.mark.parametrize(("widths", "channels"), [((32, 128, 256), 4), ((32, 64, 128, 256), 6)])
def test_equals_diffusers_on_the_same_weights_both_ways(widths, channels):
    theirs = reference(widths, channels)
    ours = TemporalUNet.from_diffusers(theirs)
    back = ours.to_diffusers()
    sample, level = torch.randn(3, channels, 64), torch.tensor([0, 17, 63])
    with torch.no_grad():
        expected = theirs(sample, level).sample
        assert (ours(sample, level) - expected).abs().max() <= 1e-5
        assert torch.equal(back(sample, level).sample, expected)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(
    ("over", "word"),
    [
        ({"kernel_size": 3}, "kernel_size"),
        ({"norm": "channel"}, "norm"),
        ({"norm_groups": 4}, "norm_groups"),
        ({"norm_placement": "post"}, "norm_placement"),
        ({"padding_mode": "replicate"}, "padding_mode"),
        ({"weights": "standardized"}, "weights"),
        ({"norm_conditioned": True}, "norm_conditioned"),
        ({"dim_mults": (2, 4)}, "dim_mults"),
    ],
)
def test_what_diffusers_cannot_express_is_refused_by_name(over, word):
    with pytest.raises(UserError, match=word):
        TemporalUNet(4, **({"dim": 32, "dim_mults": (1, 2)} | over)).to_diffusers()


def test_another_unet1d_than_the_temporal_one_is_refused_by_name():
    with pytest.raises(UserError, match="time_embedding_type"):
        TemporalUNet.from_diffusers(UNet1DModel(block_out_channels=(32, 32, 64)))


def small(**over):
    torch.manual_seed(0)
    settings = {"dim": 8, "dim_mults": (1, 2), "kernel_size": 3, "norm": "none", "norm_groups": 4} | over
    return TemporalUNet(2, **settings).double()


def support(network, length, outputs):
    """(left, right): the largest distance to an input that moves one of ``outputs``, by the Jacobian."""
    level = torch.tensor([5])
    left = right = 0
    for t in outputs:
        sample = torch.randn(1, 2, length, dtype=torch.double, requires_grad=True)
        (gradient,) = torch.autograd.grad(network(sample, level)[0, :, t].sum(), sample)
        moved = (gradient[0].abs().amax(0) > 0).nonzero().flatten()
        left, right = max(left, t - int(moved.min())), max(right, int(moved.max()) - t)
    return left, right


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kernel_size": 5, "dim_mults": (1, 4, 8)}, (147, 144)),
        ({"kernel_size": 5, "dim_mults": (1, 2, 4, 8)}, (319, 312)),
        ({"kernel_size": 5, "dim_mults": (1, 2)}, (61, 60)),
        ({"kernel_size": 5, "dim_mults": (1,)}, (18, 18)),
        ({"kernel_size": 3, "dim_mults": (1,)}, (9, 9)),
        ({"kernel_size": 3, "dim_mults": (1, 2)}, (32, 31)),
        ({"kernel_size": 3, "dim_mults": (1, 2, 4)}, (78, 75)),
    ],
)
def test_receptive_field_is_that_of_janners_layout(settings, expected):
    assert small(**settings).receptive_field() == expected


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
@pytest.mark.parametrize("norm", [norm for norm in WHOLE_KINDS if not mixes_time(norm, training=False)])
@pytest.mark.parametrize(("kernel_size", "dim_mults"), [(3, (1,)), (5, (1, 2)), (3, (1, 2)), (3, (1, 2, 4))])
def test_receptive_field_is_the_jacobians_support_for_norms_that_do_not_mix_time(
    kernel_size, dim_mults, norm, padding_mode
):
    network = small(kernel_size=kernel_size, dim_mults=dim_mults, norm=norm, padding_mode=padding_mode).eval()
    left, right = network.receptive_field()
    stride = 2 ** (len(dim_mults) - 1)
    length = stride * ((left + right) // stride + 6)
    middle = stride * ((left + 2) // stride + 1)
    assert support(network, length, range(middle, middle + stride)) == (left, right)


def test_fourier_features_are_sines_and_cosines_of_each_value_and_reach_no_farther():
    network = small(norm="channel", fourier_features=3, tell_known=True)
    dimensions = network.config["transition_dim"]
    sample = torch.rand(2, dimensions, 16, dtype=torch.float64) * 2 - 1
    seen = network._seen(sample, None)
    angles = torch.cat([sample * math.pi * octave for octave in (1, 2, 4)], dim=1)
    expected = torch.cat([sample, angles.sin(), angles.cos(), torch.zeros_like(sample)], dim=1)
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-12)
    assert network.down[0].blocks[0].first.conv.in_channels == seen.shape[1] == 8 * dimensions
    torch.testing.assert_close(network._seen(sample + 2, None)[:, dimensions:], seen[:, dimensions:])
    assert support(network, 2 * 40, range(40, 42)) == network.receptive_field() == (32, 31)


@pytest.mark.parametrize("norm", [norm for norm in WHOLE_KINDS if mixes_time(norm, training=True)])
def test_norms_that_mix_time_reach_beyond_it(norm):
    network = small(norm=norm)
    network.train()
    left, right = network.receptive_field()
    found = support(network, 128, [64])
    assert found[0] == 64 > left
    # what takes its statistics over the past alone reaches no farther ahead than the convolutions
    assert found[1] == right if norm == "cumulative" else found[1] == 63 > right


@pytest.mark.parametrize("norm", ["packnorm_isolated", "instance_isolated"])
def test_between_packs_only_packnorm_passes_anything(norm):
    network = small(norm=norm)
    sample = torch.randn(1, 2, 64, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(sample, torch.tensor([5]))[0, :, 10].sum(), sample)
    moved = gradient[0].abs().amax(0) > 0
    assert moved[:32].all()
    assert moved[32:].all() if norm == "packnorm_isolated" else not moved[32:].any()


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("norm", NORM_KINDS)
def test_shape_and_dtype_are_kept(norm, placement):
    network = small(norm=norm, norm_placement=placement).float()
    output = network(torch.randn(3, 2, 16), torch.tensor([0, 1, 2]))
    assert output.shape == (3, 2, 16)
    assert output.dtype == torch.float32


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("norm", NORM_KINDS)
def test_a_conditioned_norm_begins_as_without_and_then_follows_the_noise_level_alone(norm, placement):
    plain, conditioned = (
        small(norm=norm, norm_placement=placement, norm_conditioned=asked).eval() for asked in (False, True)
    )
    sample, level = torch.randn(2, 2, 16).double(), torch.tensor([1, 7])
    assert torch.equal(conditioned(sample, level), plain(sample, level))
    layer = conditioned.final
    nn.init.normal_(layer.norm_modulation.weight)
    nn.init.normal_(layer.norm_modulation.bias)
    x, embedding = torch.randn(2, 8, 16).double(), torch.randn(2, 8).double()
    hidden = layer.conv(x) if placement == "pre" else F.mish(layer.conv(x))
    made = embedding @ layer.norm_modulation.weight.T + layer.norm_modulation.bias
    expected = layer.norm(hidden) * (1 + made[:, :8, None]) + made[:, 8:, None]
    expected = F.mish(expected) if placement == "pre" else expected
    assert (layer(x, embedding) - expected).abs().max() < 1e-10


def test_conditioned_norms_add_no_reach():
    network = small(norm="channel", norm_conditioned=True)
    for name, parameter in network.named_parameters():
        if "norm_modulation" in name:
            nn.init.normal_(parameter)
    left, right = network.receptive_field()
    assert support(network, 96, [48, 49]) == (left, right)


def test_placement_orders_norm_and_activation():
    outputs = [
        small(norm="channel", norm_placement=p)(torch.ones(1, 2, 8).double(), torch.tensor([3]))
        for p in ("pre", "post")
    ]
    assert not torch.allclose(*outputs)


def test_replicate_padding_hides_the_ends_of_a_constant_and_zero_padding_does_not():
    constant = torch.ones(1, 2, 32).double()

    def spread(padding_mode):
        output = small(dim_mults=(1,), padding_mode=padding_mode)(constant, torch.tensor([3]))
        return (output - output[..., 16:17]).abs().max()

    assert spread("replicate") < 1e-12
    assert spread("zeros") > 1e-6


@pytest.mark.parametrize(
    ("norm", "padding_mode", "dim_mults", "blind"),
    [
        ("instance", "replicate", (1,), True),
        ("instance", "zeros", (1,), False),  # the ends betray it
        ("instance", "replicate", (1, 2), False),  # the transposed convolution's even and odd points do
        ("group", "replicate", (1,), False),  # the offset between a group's channels does
    ],
)
def test_instance_norm_alone_hides_where_a_whole_plan_lies(norm, padding_mode, dim_mults, blind):
    network = small(norm=norm, padding_mode=padding_mode, dim_mults=dim_mults)
    plan = torch.randn(1, 2, 32).double()
    outputs = [network(plan + shift, torch.tensor([3])) for shift in (0, 1)]
    assert torch.allclose(*outputs, atol=1e-4) == blind


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
def test_transposed_convolutions_pad_as_told(padding_mode):
    upsample = small(padding_mode=padding_mode).up[0].resample
    doubled = upsample(torch.ones(1, 8, 10).double()).view(1, 8, 10, 2)
    same_at_ends = (doubled - doubled[:, :, 5:6]).abs().max() < 1e-12
    assert same_at_ends == (padding_mode == "replicate")


@pytest.mark.parametrize(
    ("horizon", "mults", "packs", "words"),
    [(50, (1, 2, 4), 1, "50.*4"), (65, (1,), 2, "65.*2"), (66, (1, 2), 2, "66.*4")],
)
def test_a_horizon_that_does_not_fit_is_refused_with_both_numbers(horizon, mults, packs, words):
    with pytest.raises(UserError, match=words):
        check_horizon(horizon, mults, packs)
    with pytest.raises(UserError, match=words):
        small(dim_mults=mults, norm="instance_isolated" if packs > 1 else "none", num_packs=packs)(
            torch.zeros(1, 2, horizon).double(), torch.tensor([0])
        )


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"kernel_size": 4}, "kernel_size = 4"),
        ({"norm": "group", "norm_groups": 3}, "3.*8"),
        ({"norm": "group", "dim_mults": (1, 2.5)}, "2.5"),
        ({"dim_mults": ()}, "dim_mults"),
        ({"norm": "packnorm_isolated", "num_packs": 1}, "num_packs"),
        ({"num_packs": 2}, "isolated"),
        ({"norm": "batchnorm"}, "batchnorm.*batch"),
        ({"dim": 7}, "dim = 7"),
        ({"dim": "8"}, "dim = '8'"),
        ({"padding_mode": "circular"}, "circular"),
    ],
)
def test_impossible_settings_are_refused(over, words):
    with pytest.raises(UserError, match=words):
        small(**over)


@pytest.mark.parametrize(
    "make",
    [
        lambda **s: TemporalUNet(6, 16, (1, 2), **s),
        lambda **s: TemporalUNet(transition_dim=6, dim=16, dim_mults=[1, 2], **s),
    ],
)
@pytest.mark.parametrize("norm", NORM_KINDS)
def test_settings_by_position_and_by_name_survive_every_way_through_diffusers(make, norm, tmp_path):
    network = make(norm=norm)
    again = TemporalUNet.from_config(network.config)
    assert again.model == network.model == ModelConfig(dim=16, dim_mults=(1, 2), norm=norm)
    assert again.config["transition_dim"] == 6
    ema = EMAModel(network.parameters(), model_cls=TemporalUNet, model_config=network.config)
    ema.step(network.parameters())
    ema.save_pretrained(tmp_path)
    back = EMAModel.from_pretrained(tmp_path, TemporalUNet)
    for ours, theirs in zip(ema.shadow_params, back.shadow_params, strict=True):
        assert torch.equal(ours, theirs)
    assert TemporalUNet.from_pretrained(tmp_path, low_cpu_mem_usage=False).model == network.model


@pytest.mark.parametrize("level", [3, torch.tensor(3), torch.tensor([3, 3])])
@pytest.mark.parametrize("norm", ["group", "packnorm_isolated"])
def test_a_lone_noise_level_is_that_of_every_sample(norm, level):
    network, sample = small(norm=norm), torch.randn(2, 2, 32).double()
    assert torch.equal(network(sample, level), network(sample, torch.tensor([3, 3])))
    with pytest.raises(UserError, match=r"noise levels \(3,\) must be one or \(2,\)"):
        network(sample, torch.tensor([1, 2, 3]))


def test_save_and_load_give_equal_bits(tmp_path):
    network = small(norm="batch")
    network(torch.randn(2, 2, 16).double(), torch.tensor([1, 2]))
    network.float().save_pretrained(tmp_path)
    again = load_unet(tmp_path)
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("damage", ["missing", "extra", "shape", "nan"])
def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path, damage):
    small().float().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    match damage:
        case "missing":
            del tensors["project.weight"]
        case "extra":
            tensors["project.weight.other"] = torch.zeros(1)
        case "shape":
            tensors["project.weight"] = torch.zeros(3, 8, 1)
        case "nan":
            tensors["project.weight"][0, 0, 0] = torch.nan
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=r"project\.weight"):
        load_unet(tmp_path)


def test_a_pickle_is_never_opened(tmp_path):
    small().float().save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with (tmp_path / "diffusion_pytorch_model.bin").open("wb") as file:
        pickle.dump(Bomb(), file)
    with pytest.raises(UserError, match="safetensors only"):
        load_unet(tmp_path)


@pytest.mark.parametrize("change", [{"other": 1}, {"dim": 16}])
def test_a_config_that_does_not_fit_the_weights_is_refused(tmp_path, change):
    small().float().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"other|is \[8\], its config needs \[16\]"):
        load_unet(tmp_path)


def test_a_horizon_that_leaves_a_norm_one_point_is_refused():
    with pytest.raises(UserError, match="horizon = 4 leaves one point at the coarsest of 3 levels.*at least 8"):
        check_horizon(4, (1, 2, 4))
    with pytest.raises(UserError, match="at least 8"):
        check_horizon(4, (1, 2), num_packs=2)
    check_horizon(8, (1, 2, 4))
