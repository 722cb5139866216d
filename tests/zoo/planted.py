"""Leaks planted at random in small networks that are local, and the same networks without.

    for leak in planted(200, seed=0): leak.network, leak.without, leak.name

A draw is a family of networks with random depths, kernels and widths, a place in it, a kind of leak and a strength. The
leak is a module at the place, or functional code in the forward of the block that has the place; ``name`` is the
innermost module whose forward holds it. A leak moves the output by at least ``SEEN`` of its deviation: where a draw
does less, its strength is raised.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import parts
from zoo.changes import movement
from zoo.fields import Field, beside, causal, chain, conv, here, nearest, reach, transposed, window

SEEN = 1e-6
WIDTHS = (4, 6, 8)


class Block(nn.Module):
    """A layer, a place for a module that leaks, an activation; ``leak`` is code of this forward, or nothing."""

    def __init__(self, layer: nn.Module, activation: nn.Module):
        super().__init__()
        self.layer, self.site, self.activation = layer, nn.Identity(), activation
        self.leak: Callable[[Tensor], Tensor] | None = None

    def forward(self, x):
        x = self.site(self.layer(x))
        if self.leak is not None:
            x = self.leak(x)
        return self.activation(x)


@dataclass
class Base:
    """A local network with places, and its receptive field by formula.

    ``inner_dim`` is the time axis where the places are, ``channel_dim`` that of channels.
    """

    network: nn.Module
    field: Field
    shape: tuple[int, ...]
    dim: int = -1
    inner_dim: int = -1
    channel_dim: int = 1
    condition: int = 0


# networks


def _activation(rng: random.Random) -> nn.Module:
    return rng.choice([nn.ReLU, nn.Mish, nn.GELU, nn.Tanh, nn.SiLU])()


def _stack(rng: random.Random) -> Base:
    """Convolutions in a row."""
    width, fields = rng.choice(WIDTHS), [conv(3)]
    layers: list[nn.Module] = [parts.conv(3, width)]
    for _ in range(rng.randint(1, 4)):
        kernel, dilation = rng.choice([1, 3, 5]), rng.choice([1, 2])
        layers.append(Block(parts.conv(width, width, kernel, dilation=dilation), _activation(rng)))
        fields.append(conv(kernel, dilation))
    return Base(nn.Sequential(*layers, parts.conv(width, 3)), chain(*fields, conv(3)), (2, 3, rng.choice([96, 128])))


def _causal_residual(rng: random.Random) -> Base:
    """A TCN."""
    width, fields = rng.choice(WIDTHS), []
    layers: list[nn.Module] = [nn.Conv1d(3, width, 1)]
    for dilation in (1, 2, 4)[: rng.randint(2, 3)]:
        block = Block(parts.causal_conv(width, width, 3, dilation), _activation(rng))
        layers.append(parts.Residual(block, nn.Conv1d(width, width, 1)))
        fields.append(causal(3, dilation))
    return Base(nn.Sequential(*layers, nn.Conv1d(width, 3, 1)), chain(*fields), (2, 3, rng.choice([64, 96])))


class _UNet(nn.Module):
    def __init__(self, width, inner, rng):
        super().__init__()
        self.inlet, self.down = Block(parts.conv(3, width), _activation(rng)), nn.Conv1d(width, width, 3, 2, padding=1)
        self.lower, self.up = Block(parts.conv(width, width, inner), _activation(rng)), nn.Upsample(scale_factor=2)
        self.outlet = nn.ModuleList([Block(parts.conv(2 * width, width), _activation(rng)), nn.Conv1d(width, 3, 1)])

    def forward(self, x):
        x = self.inlet(x)
        x = torch.cat([x, self.up(self.lower(self.down(x)))], 1)
        for layer in self.outlet:
            x = layer(x)
        return x


def _unet(rng: random.Random) -> Base:
    """One level down and up."""
    inner = rng.choice([3, 5])
    whole = chain(conv(3), beside(here, chain(conv(3, stride=2), conv(inner), nearest(2))), conv(3))
    return Base(_UNet(rng.choice(WIDTHS), inner, rng), whole, (2, 3, rng.choice([96, 128])))


def _channels_last(rng: random.Random) -> Base:
    """Blocks of (B, T, C) as in ConvNeXt."""
    width, fields = rng.choice(WIDTHS), []
    layers: list[nn.Module] = [nn.Linear(3, width)]
    for _ in range(rng.randint(1, 3)):
        kernel = rng.choice([3, 7])
        block = Block(nn.Linear(width, width), _activation(rng))
        depthwise = parts.ChannelsLast(parts.conv(width, width, kernel, groups=width))
        layers.append(parts.Residual(depthwise, nn.LayerNorm(width), block))
        fields.append(conv(kernel))
    shape = (2, rng.choice([64, 96]), 3)
    return Base(nn.Sequential(*layers, nn.Linear(width, 3)), chain(*fields), shape, 1, 1, -1)


def _image(rng: random.Random) -> Base:
    """Convolutions of images, along one of their axes."""
    width, dim, fields = rng.choice(WIDTHS), rng.choice([-1, -2]), [conv(3)]
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
    for _ in range(rng.randint(1, 3)):
        layers.append(Block(nn.Conv2d(width, width, 3, padding=1), _activation(rng)))
        fields.append(conv(3))
    shape = (1, 3, 6, 64) if dim == -1 else (1, 3, 64, 6)
    return Base(nn.Sequential(*layers, nn.Conv2d(width, 2, 1)), chain(*fields), shape, dim, dim)


class _FiLMBlock(nn.Module):
    def __init__(self, width, condition, rng):
        super().__init__()
        self.block, self.film = Block(parts.conv(width, width), _activation(rng)), parts.FiLM(condition, width)

    def forward(self, x, condition):
        return x + self.film(self.block(x), condition)


def _conditional(rng: random.Random) -> Base:
    """FiLM from a second argument."""
    count, width = rng.randint(1, 3), rng.choice(WIDTHS)
    network = parts.Conditional(width, *(_FiLMBlock(width, 5, rng) for _ in range(count)))
    return Base(network, chain(*[conv(3)] * (count + 2)), (2, 3, rng.choice([64, 96])), condition=5)


def _windowed(rng: random.Random) -> Base:
    """Attention in windows, every second one shifted."""
    size, width = rng.choice([4, 8]), rng.choice(WIDTHS)
    layers: list[nn.Module] = [nn.Linear(3, width)]
    fields = []
    for i in range(rng.randint(1, 2)):
        shift = size // 2 if i % 2 else 0
        block = Block(nn.Linear(width, width), _activation(rng))
        layers += [
            parts.Residual(parts.Attention(width, window=size, shift=shift)),
            parts.Residual(nn.LayerNorm(width), block),
        ]
        fields.append(window(size, shift))
    return Base(nn.Sequential(*layers, nn.Linear(width, 3)), chain(*fields), (2, 64, 3), 1, 1, -1)


def _encoder(rng: random.Random) -> Base:
    """Strided, so that the output is shorter than the input."""
    width, fields = rng.choice(WIDTHS), [causal(5)]
    layers: list[nn.Module] = [parts.causal_conv(3, width, 5)]
    for stride in rng.choice([(2,), (4,), (2, 2)]):
        layers += [Block(parts.causal_conv(width, width, 3), _activation(rng))]
        layers += [parts.causal_conv(width, width, 2 * stride, stride=stride)]
        fields += [causal(3), causal(2 * stride, stride=stride)]
    last = Block(parts.causal_conv(width, 4, 3), nn.Identity())
    return Base(nn.Sequential(*layers, last, nn.Conv1d(4, 4, 1)), chain(*fields, causal(3)), (2, 3, 192))


def _decoder(rng: random.Random) -> Base:
    """Transposed convolutions, so that the output is longer than the input."""
    width, stride = rng.choice(WIDTHS), rng.choice([2, 4])
    up = nn.ConvTranspose1d(width, width, 2 * stride, stride, padding=stride // 2)
    layers = [Block(parts.conv(3, width), _activation(rng)), up, Block(parts.conv(width, width), _activation(rng))]
    whole = chain(conv(3), transposed(2 * stride, stride, stride // 2), conv(3), conv(3))
    return Base(nn.Sequential(*layers, parts.conv(width, 3)), whole, (2, 3, 48))


FAMILIES = (
    _stack,
    _causal_residual,
    _unet,
    _channels_last,
    _image,
    _conditional,
    _windowed,
    _encoder,
    _decoder,
)


# leaks: x, the time axis and the strength


def _mean(x, dim, strength):
    return x + strength * x.mean(dim, keepdim=True)


def _deviation(x, dim, strength):
    return x * (1 + strength * (x.var(dim, correction=0, keepdim=True) + 1e-5).sqrt())


def _standardized(x, dim, strength):
    variance, mean = torch.var_mean(x, dim, correction=0, keepdim=True)
    return x + strength * ((x - mean) * (variance + 1e-5).rsqrt() - x)


def _root_mean_square(x, dim, strength):
    return x + strength * (x / (x.square().mean(dim, keepdim=True) + 1e-5).sqrt() - x)


def _largest(x, dim, strength):
    return x + strength * x.amax(dim, keepdim=True)


def _median(x, dim, strength):
    return x + strength * x.median(dim, keepdim=True).values


def _log_sum_exp(x, dim, strength):
    return x + strength * x.logsumexp(dim, keepdim=True)


def _attention_pooling(x, dim, strength):
    return x + strength * (x.softmax(dim) * x).sum(dim, keepdim=True)


def _softmax_over_time(x, dim, strength):
    return x + strength * x.softmax(dim)


def _gate(x, dim, strength):
    return x * (1 + strength * x.mean(dim, keepdim=True).sigmoid())


def _past_mean(x, dim, strength):
    shape = [1] * x.ndim
    shape[dim] = -1
    return x - strength * x.cumsum(dim) / torch.arange(1, x.shape[dim] + 1, device=x.device).reshape(shape)


def _whole_energy(x, dim, strength):
    return x / (1 + strength * x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1)) / x[0].numel() ** 0.5)


def _detached_mean(x, dim, strength):
    with torch.no_grad():
        mean = x.mean(dim, keepdim=True)
    return x - strength * mean


def _straight_through(x, dim, strength):
    return x + strength * ((20 * (x - x.mean(dim, keepdim=True))).floor() / 20).detach()


def _above_the_mean(x, dim, strength):
    return x + strength * (x > x.mean(dim, keepdim=True)).to(x.dtype)


def _flipped(x, dim, strength):
    return x + strength * x.flip(dim)


def _rolled_by_half(x, dim, strength):
    return x + strength * x.roll(x.shape[dim] // 2, dim)


def _low_pass(x, dim, strength):
    spectrum = torch.fft.rfft(x, dim=dim)
    kept = spectrum.narrow(dim, 0, 3)
    return x + strength * torch.fft.irfft(kept, n=x.shape[dim], dim=dim)


def _self_attention(x, dim, strength):
    turned = dim == -1  # the last axis but one is time otherwise
    q = x.transpose(-1, -2) if turned else x
    heard = F.scaled_dot_product_attention(q, q, q)
    return x + strength * (heard.transpose(-1, -2) if turned else heard)


def _decaying_sum(x, dim, strength):
    steps = x.shape[dim]
    at = torch.arange(steps, device=x.device, dtype=x.dtype)
    weights = torch.where(at[:, None] >= at, 0.9 ** (at[:, None] - at).clamp_min(0), 0)
    return x + strength * torch.einsum("ts,...s->...t", weights, x.movedim(dim, -1)).movedim(-1, dim)


FUNCTIONS = (
    _mean,
    _deviation,
    _standardized,
    _root_mean_square,
    _largest,
    _median,
    _log_sum_exp,
    _attention_pooling,
    _softmax_over_time,
    _gate,
    _past_mean,
    _whole_energy,
    _detached_mean,
    _straight_through,
    _above_the_mean,
    _flipped,
    _rolled_by_half,
    _low_pass,
    _self_attention,
    _decaying_sum,
)


class Leak(nn.Module):
    """A function as a module without children."""

    def __init__(self, function: Callable[..., Tensor], dim: int, strength: float):
        super().__init__()
        self.function, self.dim, self.strength = function, dim, strength

    def forward(self, x):
        return self.function(x, self.dim, self.strength)


class Blend(nn.Module):
    """x and a share of what another module makes of it, which is laid out (B, C, T) or (B, T, C) as it wants."""

    def __init__(self, inner: nn.Module, strength: float, turned: bool = False, recurrent: bool = False):
        super().__init__()
        self.inner, self.strength, self.turned, self.recurrent = inner, strength, turned, recurrent

    def forward(self, x):
        given = x.transpose(1, -1) if self.turned else x
        made = self.inner(given)
        made = made[0] if self.recurrent else made
        return x + self.strength * (made.transpose(1, -1) if self.turned else made)


class PooledGate(nn.Module):
    """Squeeze and excitation of library modules: the pool is a leaf."""

    def __init__(self, channels: int, strength: float, images: bool):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1) if images else nn.AdaptiveAvgPool1d(1)
        self.linear, self.strength = (nn.Conv2d if images else nn.Conv1d)(channels, channels, 1), strength

    def forward(self, x):
        return x * (1 + self.strength * self.linear(self.pool(x)).sigmoid())


def _library(rng: random.Random, base: Base, channels: int, strength: float) -> tuple[str, nn.Module, str]:
    """A leak of torch's own modules: kind, module, and the name in it of the leaf that mixes."""
    images, last = len(base.shape) == 4, base.channel_dim == -1
    norm = (nn.InstanceNorm2d if images else nn.InstanceNorm1d)(channels, affine=True)
    choices: list[tuple[str, Callable[[], nn.Module], str]] = [
        ("GroupNorm", lambda: Blend(nn.GroupNorm(rng.choice([1, 2]), channels), strength, last), "inner"),
        ("InstanceNorm", lambda: Blend(norm, strength, last), "inner"),
    ]
    if not last:
        choices.append(("pooled gate", lambda: PooledGate(channels, strength, images), "pool"))
    if not images:
        recurrent = rng.choice([nn.LSTM, nn.GRU])
        cell = recurrent(channels, channels, batch_first=True)
        choices.append((recurrent.__name__, lambda: Blend(cell, strength, not last, True), "inner"))
        attention = nn.TransformerEncoderLayer(channels, 1, 2 * channels, dropout=0.0, batch_first=True)
        choices.append(("attention", lambda: Blend(attention, strength, not last), "inner.self_attn"))
    kind, make, name = rng.choice(choices)
    return kind, make(), name


# a draw


@dataclass(repr=False)
class Planted:
    """A network with one leak.

    Attributes:
        index: which draw.
        family: of the network.
        kind: of the leak.
        functional: whether it is code of a forward rather than a module.
        strength: what it was multiplied with.
        name: the innermost module whose forward holds it.
        network: with the leak.
        without: the same weights without it.
        field: the receptive field without it, by formula.
        inputs: arguments, the sequence first.
        dim: the time axis.
        moved: by how much everything beyond the field moves an output, in deviations.
    """

    index: int
    family: str
    kind: str
    functional: bool
    strength: float
    name: str
    network: nn.Module
    without: nn.Module
    field: Field
    inputs: tuple[Tensor, ...]
    dim: int
    moved: float

    def reach(self) -> tuple[int, int]:
        """The reach without the leak."""
        with torch.no_grad():
            outputs = self.without(*self.inputs).shape[self.dim]
        return reach(self.field, outputs, self.inputs[0].shape[self.dim])


def _channels(base: Base, inputs: tuple[Tensor, ...], place: str) -> int:
    """How many channels the place has."""
    seen: list[int] = []
    handle = base.network.get_submodule(place).site.register_forward_hook(
        lambda module, given, output: seen.append(output.shape[base.channel_dim])
    )
    with torch.no_grad():
        base.network(*inputs)
    handle.remove()
    return seen[0]


def _plant(
    rng: random.Random, base: Base, channels: int, place: str, strength: float
) -> tuple[nn.Module, str, bool, str]:
    """A copy of the network with a leak: kind, whether it is functional, and the name to be blamed."""
    network = copy.deepcopy(base.network)
    block = network.get_submodule(place)
    form = rng.choice(["module", "functional", "library"])
    if form == "library":
        kind, block.site, inner = _library(rng, base, channels, strength)
        return network, kind, False, f"{place}.site.{inner}"
    function = rng.choice(FUNCTIONS)
    kind = function.__name__.strip("_").replace("_", " ")
    if form == "functional":
        block.leak = lambda x: function(x, base.inner_dim, strength)
        return network, kind, True, place
    block.site = Leak(function, base.inner_dim, strength)
    return network, kind, False, f"{place}.site"


def draw(index: int, seed: int) -> Planted:
    """The network of one draw, in double precision and evaluation mode."""
    rng = random.Random(f"{seed}/{index}")
    torch.manual_seed(rng.randrange(2**31))
    family = rng.choice(FAMILIES)
    base = family(rng)
    base.network.double().eval()
    shapes = [base.shape, *([(base.shape[0], base.condition)] if base.condition else [])]
    inputs = tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)
    place = rng.choice([name for name, part in base.network.named_modules() if isinstance(part, Block)])
    channels, strength = _channels(base, inputs, place), 10 ** rng.uniform(-5, 0)
    state, weights = rng.getstate(), torch.get_rng_state()
    while True:
        rng.setstate(state), torch.set_rng_state(weights)
        network, kind, functional, name = _plant(rng, base, channels, place, strength)
        network.double().eval()
        moved = movement(network, inputs, base.dim, base.field)
        if moved >= SEEN:
            break
        strength *= 10
        assert strength < 1e6, f"{kind} at {place} of draw {index} moves nothing"
    family_name = family.__name__.strip("_")
    return Planted(
        index, family_name, kind, functional, strength, name, network, base.network, base.field, inputs, base.dim, moved
    )


def planted(count: int, seed: int) -> Iterator[Planted]:
    """Draws in order; each is a function of the seed and its index alone."""
    for index in range(count):
        yield draw(index, seed)
