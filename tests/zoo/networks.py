"""Small networks, each of a kind that people publish, with what an audit of it has to say.

``verdict`` is the truth: ``local``; ``leaks`` where statistics over time, or their kin, cross a network that is local
without them; ``global`` where the network reaches everything by design, as attention over all steps or a recurrence
does; ``not measured`` where on this input nothing can be. ``field`` is the formula of the receptive field without what
mixes. Whatever mixes is marked while the network is built (``mix``), and that is the blame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from zoo import parts
from zoo.fields import Field, beside, causal, chain, conv, here, nearest, transposed, window
from zoo.parts import Residual

Mix = Callable[..., nn.Module]
SPECIMENS: dict[str, Specimen] = {}


@dataclass(frozen=True)
class Specimen:
    """One network and its truth.

    Attributes:
        name: of the network.
        source: whose kind it is.
        verdict: what an audit has to say.
        field: the receptive field without what mixes, by formula.
        build: makes the network from a function that marks what mixes.
        shape: of the sequence.
        dim: its time axis.
        condition: the size of a second argument (B, E), if there is one.
        zeros: whether the input is zeros rather than drawn from a standard normal.
        otherwise: what may be said instead of ``not measured``, of other weights or another input, if that is said.
    """

    name: str
    source: str
    verdict: str
    field: Field
    build: Callable[[Mix], nn.Module]
    shape: tuple[int, ...] = (2, 3, 96)
    dim: int = -1
    condition: int = 0
    zeros: bool = False
    otherwise: str = ""

    def network(self, mixing: bool = True) -> nn.Module:
        """The network in evaluation mode, or the same with local modules of the same names for those that mix."""

        def mix(module: nn.Module, local: nn.Module | None = None) -> nn.Module:
            if not mixing:
                return nn.Identity() if local is None else local
            module.mixes_time = True
            return module

        torch.manual_seed(0)
        network = self.build(mix).eval()
        for part in network.modules():  # BatchNorm that is meant to run on this batch's statistics
            part.train(getattr(part, "on_this_batch", False))
        return network

    def blamed(self) -> set[str]:
        """The names of the modules that mix time."""
        return {name for name, part in self.network().named_modules() if getattr(part, "mixes_time", False)}

    def inputs(self, seed: int = 0) -> tuple[torch.Tensor, ...]:
        """Arguments, the sequence first."""
        generator = torch.Generator().manual_seed(seed)
        shapes = [self.shape, *([(self.shape[0], self.condition)] if self.condition else [])]
        drawn = tuple(torch.randn(shape, generator=generator) for shape in shapes)
        return tuple(torch.zeros_like(x) for x in drawn) if self.zeros else drawn


def specimen(verdict: str, source: str, field: Field = here, **settings) -> Callable:
    """Puts a builder among the specimens, under its own name."""

    def register(build: Callable[[Mix], nn.Module]) -> Callable[[Mix], nn.Module]:
        SPECIMENS[build.__name__] = Specimen(build.__name__, source, verdict, field, build, **settings)
        return build

    return register


def around(middle: Field) -> Field:
    """Something between two convolutions of three taps."""
    return chain(conv(3), middle, conv(3))


def between(*layers: nn.Module, channels: int = 8) -> nn.Module:
    """Layers between two convolutions of three taps."""
    return nn.Sequential(parts.conv(3, channels), *layers, parts.conv(channels, 3))


def group(mix: Mix) -> Callable[[int], nn.Module]:
    """GroupNorms of four groups."""
    return lambda channels: mix(nn.GroupNorm(4, channels))


def no_norm(channels: int) -> nn.Module:
    """Nothing."""
    return nn.Identity()


def channelwise(channels: int) -> nn.Module:
    """Statistics per step."""
    return parts.ChannelwiseNorm()


# temporal convolutions

TCN = chain(*[causal(3, d) for d in (1, 2, 4) for _ in range(2)])


def _tcn(norm):
    def layer(dilation):
        return [parts.causal_conv(8, 8, 3, dilation, wrap=weight_norm), norm(8), nn.ReLU()]

    blocks = [Residual(*layer(d), *layer(d)) for d in (1, 2, 4)]
    return nn.Sequential(nn.Conv1d(3, 8, 1), *blocks, nn.Conv1d(8, 3, 1))


@specimen("local", "Bai et al. 2018, TCN: weight norm", TCN)
def tcn(mix):
    return _tcn(no_norm)


@specimen("leaks", "a TCN with GroupNorm", TCN)
def tcn_group(mix):
    return _tcn(group(mix))


WAVENET = chain(causal(2), *[causal(2, d) for d in (1, 2, 4, 8)])


def _wavenet(norm):
    layers = [
        Residual(parts.causal_conv(8, 16, 2, d), norm(16), parts.Gated(), nn.Conv1d(8, 8, 1)) for d in (1, 2, 4, 8)
    ]
    return nn.Sequential(parts.causal_conv(3, 8, 2), *layers, nn.ReLU(), nn.Conv1d(8, 3, 1))


@specimen("local", "van den Oord et al. 2016, WaveNet", WAVENET)
def wavenet(mix):
    return _wavenet(no_norm)


@specimen("leaks", "WaveNet with InstanceNorm", WAVENET)
def wavenet_instance(mix):
    return _wavenet(lambda channels: mix(nn.InstanceNorm1d(channels, affine=True)))


@specimen("local", "Kriman et al. 2019, QuartzNet: separable, BatchNorm in evaluation", around(chain(conv(5), conv(7))))
def quartznet(mix):
    layers = []
    for kernel in (5, 7):
        layers += [parts.conv(8, 8, kernel, groups=8), nn.Conv1d(8, 8, 1), nn.BatchNorm1d(8), nn.ReLU()]
    return between(*layers)


@specimen("leaks", "the same on the batch's statistics", around(conv(5)))
def batch_norm_in_training(mix):
    norm = mix(nn.BatchNorm1d(8), nn.BatchNorm1d(8))
    norm.on_this_batch = getattr(norm, "mixes_time", False)
    return between(parts.conv(8, 8, 5), norm, nn.ReLU())


@specimen("leaks", "a ResNet with InstanceNorm", around(chain(conv(3), conv(3))))
def resnet_instance(mix):
    return between(Residual(parts.conv(8, 8), mix(nn.InstanceNorm1d(8)), nn.ReLU(), parts.conv(8, 8)))


@specimen("local", "dropout in training, spectral norm", around(conv(3, 2)))
def dropout(mix):
    drop = nn.Dropout(0.2)
    drop.on_this_batch = True
    return between(spectral_norm(parts.conv(8, 8, dilation=2)), nn.LeakyReLU(), drop)


# source separation

TASNET = chain(conv(8, stride=4, left=2), conv(3, 1), conv(3, 2), transposed(8, 4, 2))


@specimen("leaks", "Luo & Mesgarani 2019, Conv-TasNet: global layer norm", TASNET, shape=(2, 1, 128))
def conv_tasnet_global(mix):
    return parts.ConvTasNet(lambda channels: mix(parts.GlobalLayerNorm(channels)))


@specimen("leaks", "Conv-TasNet: cumulative layer norm, which hears all that was", TASNET, shape=(2, 1, 128))
def conv_tasnet_cumulative(mix):
    return parts.ConvTasNet(lambda channels: mix(parts.CumulativeLayerNorm()))


@specimen("local", "Conv-TasNet: channel-wise layer norm", TASNET, shape=(2, 1, 128))
def conv_tasnet_channel(mix):
    return parts.ConvTasNet(channelwise)


ENCODER1, ENCODER2 = conv(8, stride=4, left=2), conv(4, stride=2, left=1)
DEMUCS = chain(
    ENCODER1,
    beside(here, chain(ENCODER2, conv(3), transposed(4, 2, 1))),
    conv(3),
    transposed(8, 4, 2),
)


@specimen("local", "Défossez et al. 2019, Demucs without its LSTM", DEMUCS, shape=(2, 3, 256))
def demucs(mix):
    return parts.Demucs(no_norm, nn.Identity())


@specimen("leaks", "Demucs with GroupNorm(1)", DEMUCS, shape=(2, 3, 256))
def demucs_group(mix):
    return parts.Demucs(lambda channels: mix(nn.GroupNorm(1, channels)), nn.Identity())


@specimen("global", "Demucs with its LSTM", DEMUCS, shape=(2, 3, 256))
def demucs_lstm(mix):
    lstm = mix(nn.LSTM(8, 4, bidirectional=True, batch_first=True), parts.NoCell())
    return parts.Demucs(no_norm, parts.ChannelsLast(parts.Recurrent(lstm)))


# codecs

CODEC = chain(causal(7), causal(3), causal(4, stride=2), causal(3), causal(8, stride=4), causal(3))


def _codec(norm, *end):
    layers = [parts.causal_conv(3, 8, 7)]
    for stride in (2, 4):
        layers += [Residual(nn.ELU(), parts.causal_conv(8, 8, 3), norm(8)), nn.ELU()]
        layers += [parts.causal_conv(8, 8, 2 * stride, stride=stride)]
    return nn.Sequential(*layers, *end, nn.ELU(), parts.causal_conv(8, 4, 3))


@specimen("local", "Zeghidour et al. 2021, SoundStream's encoder", CODEC, shape=(2, 3, 256))
def codec_encoder(mix):
    return _codec(no_norm)


@specimen("leaks", "the same with time_group_norm, as EnCodec offers", CODEC, shape=(2, 3, 256))
def codec_encoder_group(mix):
    return _codec(lambda channels: mix(nn.GroupNorm(1, channels)))


@specimen("global", "Défossez et al. 2022, EnCodec's encoder with its LSTM", CODEC, shape=(2, 3, 256))
def encodec_encoder(mix):
    lstm = mix(nn.LSTM(8, 8, batch_first=True), parts.NoCell())
    return _codec(no_norm, parts.ChannelsLast(parts.Recurrent(lstm)))


@specimen("local", "van den Oord et al. 2017, VQ-VAE: straight-through codes", around(here))
def vq_autoencoder(mix):
    return between(nn.Mish(), parts.conv(8, 4, 1), parts.Quantizer(4), parts.conv(4, 8, 1))


# U-Nets

UNET = chain(conv(3), beside(here, chain(conv(3, stride=2), conv(3), nearest(2))), conv(3))


@specimen("leaks", "Ronneberger et al. 2015, Janner et al. 2022: a U-Net with GroupNorm", UNET)
def unet_group(mix):
    return parts.UNet(group(mix), nn.Identity())


@specimen("local", "a U-Net with norms over channels", UNET)
def unet_channel(mix):
    return parts.UNet(channelwise, nn.Identity())


@specimen("leaks", "the same with activations computed again in the backward pass", UNET)
def unet_checkpointed(mix):
    return parts.UNet(channelwise, parts.Checkpointed(parts.conv(8, 8, 1), mix(nn.GroupNorm(4, 8)), nn.Mish()))


@specimen("global", "lucidrains' denoising U-Net with linear attention at the bottom", UNET)
def unet_linear_attention(mix):
    attention = mix(parts.LinearAttention(8))
    return parts.UNet(no_norm, Residual(parts.ChannelsLast(attention)))


@specimen("not measured", "Dhariwal & Nichol 2021: the last layer begins at zero", UNET, otherwise="leaks")
def unet_zero_outlet(mix):
    unet = parts.UNet(group(mix), nn.Identity())
    nn.init.zeros_(unet.outlet[2].weight), nn.init.zeros_(unet.outlet[2].bias)
    return unet


@specimen("leaks", "a 2D U-Net with GroupNorm, along the width", UNET, shape=(1, 3, 8, 64))
def unet_2d_group(mix):
    return parts.UNet(group(mix), nn.Identity(), conv_type=nn.Conv2d)


@specimen("local", "a 2D U-Net with BatchNorm in evaluation, along the height", UNET, shape=(1, 3, 64, 8), dim=-2)
def unet_2d_batch(mix):
    return parts.UNet(nn.BatchNorm2d, nn.Identity(), conv_type=nn.Conv2d)


ASPP = around(beside(conv(1), conv(3, 2), conv(3, 4)))


@specimen("leaks", "Chen et al. 2017, DeepLab v3: atrous pyramid with image pooling", ASPP, shape=(1, 3, 8, 64))
def deeplab(mix):
    class Nothing(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    rates = [nn.Conv2d(8, 8, 1), *(nn.Conv2d(8, 8, 3, padding=d, dilation=d) for d in (2, 4))]
    pyramid = parts.Branches(*rates, mix(parts.ImagePooling(8), Nothing()))
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), pyramid, nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))


@specimen("leaks", "a video network with GroupNorm, along time", around(here), shape=(1, 3, 48, 4, 4), dim=2)
def video_group(mix):
    def over_time(c_in, c_out):
        return nn.Conv3d(c_in, c_out, 3, padding=1)

    return nn.Sequential(over_time(3, 8), mix(nn.GroupNorm(2, 8)), nn.SiLU(), over_time(8, 3))


# conditioning

FILM = around(chain(*[conv(3)] * 4))


@specimen("leaks", "Chi et al. 2023, diffusion policy: FiLM blocks with GroupNorm", FILM, condition=5)
def film_group(mix):
    norm = group(mix)
    return parts.Conditional(8, *(parts.FiLMBlock(8, 5, norm(8), norm(8)) for _ in range(2)))


@specimen("local", "the same with norms over channels", FILM, condition=5)
def film_channel(mix):
    return parts.Conditional(8, *(parts.FiLMBlock(8, 5, channelwise(8), channelwise(8)) for _ in range(2)))


@specimen("leaks", "FiLM from the sequence's own mean", around(here))
def film_of_its_mean(mix):
    return between(nn.Mish(), mix(parts.SelfConditioned(8, True), parts.SelfConditioned(8, False)), nn.Mish())


# gates and other statistics


@specimen("leaks", "Hu et al. 2018, squeeze and excitation", around(conv(3)))
def squeeze_excitation(mix):
    return between(Residual(parts.conv(8, 8), nn.ReLU(), mix(parts.SqueezeExcitation(8))))


@specimen("leaks", "Woo et al. 2023, ConvNeXt V2: global response norm", around(conv(7)), shape=(2, 96, 3), dim=1)
def convnext_v2(mix):
    mlp = [nn.Linear(8, 16), nn.GELU(), mix(parts.GlobalResponseNorm(16)), nn.Linear(16, 8)]
    block = Residual(parts.conv(8, 8, 7, groups=8), parts.ChannelsLast(nn.LayerNorm(8), *mlp))
    return parts.ChannelsLast(between(block))


@specimen("local", "Liu et al. 2022, ConvNeXt: LayerNorm over channels", around(conv(7)), shape=(2, 96, 3), dim=1)
def convnext(mix):
    mlp = [nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)]
    block = Residual(parts.conv(8, 8, 7, groups=8), parts.ChannelsLast(nn.LayerNorm(8), *mlp))
    return parts.ChannelsLast(between(block))


@specimen("leaks", "Liu et al. 2020, EvoNorm-S0", around(conv(3)))
def evonorm(mix):
    return between(mix(parts.EvoNormS0(8, 4)), parts.conv(8, 8))


@specimen("leaks", "statistics that pass no gradient", around(here))
def detached_statistics(mix):
    return between(mix(parts.DetachedNorm()), nn.Mish())


@specimen("not measured", "ReLUs without biases on an input of zeros", around(conv(5)), zeros=True, otherwise="local")
def relu_on_zeros(mix):
    layers = [
        nn.Conv1d(3, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv1d(8, 8, 5, padding=2, bias=False),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers, nn.Conv1d(8, 3, 3, padding=1, bias=False))


# attention, recurrence, transforms


@specimen("global", "Peebles & Xie 2023, DiT: full attention", shape=(2, 48, 3), dim=1, condition=5)
def dit_full(mix):
    return parts.DiT(8, 5, *(mix(parts.Attention(8)) for _ in range(2)))


WINDOWS = chain(window(8), window(8, 4))


@specimen("local", "DiT with windows, every second one shifted", WINDOWS, shape=(2, 64, 3), dim=1, condition=5)
def dit_windowed(mix):
    return parts.DiT(8, 5, parts.Attention(8, window=8), parts.Attention(8, window=8, shift=4))


@specimen("leaks", "banded attention behind GroupNorm, as diffusers' blocks have it", around(conv(9)))
def local_attention_group(mix):
    return between(Residual(mix(nn.GroupNorm(4, 8)), parts.ChannelsLast(parts.Attention(8, band=4))))


@specimen("global", "Gu & Dao 2023, Mamba: a selective scan", shape=(2, 3, 48), field=around(causal(4)))
def mamba(mix):
    scan = mix(parts.SelectiveScan(8))
    return between(Residual(parts.causal_conv(8, 8, 4), nn.SiLU(), parts.ChannelsLast(scan)))


@specimen("global", "Li et al. 2021, a Fourier neural operator", shape=(2, 3, 64))
def fourier_operator(mix):
    operator = parts.Branches(mix(parts.SpectralConv(8, 6)), nn.Conv1d(8, 8, 1))
    return nn.Sequential(nn.Conv1d(3, 8, 1), operator, nn.GELU(), nn.Conv1d(8, 3, 1))


@specimen("global", "Poli et al. 2023, Hyena: a convolution as long as the sequence", field=around(here))
def hyena(mix):
    return between(mix(parts.LongConv(8)), nn.GELU())
