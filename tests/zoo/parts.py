"""Layers that published networks are made of, small. Letters: B batch, C channels, T time, N heads.

A part takes (B, C, T) unless it says otherwise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torch.utils.checkpoint import checkpoint


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, *layers):
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.inner(x)


class Branches(nn.Module):
    """The sum of several layers of one input."""

    def __init__(self, *layers):
        super().__init__()
        self.branches = nn.ModuleList(layers)

    def forward(self, x):
        return sum(branch(x) for branch in self.branches)


class Gated(nn.Module):
    """tanh · sigmoid of two halves of the channels: WaveNet's unit."""

    def forward(self, x):
        a, b = x.chunk(2, 1)
        return a.tanh() * b.sigmoid()


class Checkpointed(nn.Module):
    """Layers whose activations are computed again in the backward pass."""

    def __init__(self, *layers):
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


class ChannelsLast(nn.Module):
    """A part of (B, T, C) inside a network of (B, C, T)."""

    def __init__(self, *layers):
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x):
        return self.inner(x.transpose(1, -1)).transpose(1, -1)


def causal_conv(c_in, c_out, kernel, dilation=1, stride=1, wrap=lambda c: c):
    """A convolution that hears no later step than the newest of its stride."""
    left = dilation * (kernel - 1) - (stride - 1)
    pad = nn.ConstantPad1d((left, stride - 1), 0.0)
    return nn.Sequential(pad, wrap(nn.Conv1d(c_in, c_out, kernel, stride, dilation=dilation)))


def conv(c_in, c_out, kernel=3, **settings):
    """A convolution that keeps the length."""
    dilation = settings.get("dilation", 1)
    return nn.Conv1d(c_in, c_out, kernel, **({"padding": dilation * (kernel - 1) // 2} | settings))


# statistics over time


class GlobalLayerNorm(nn.Module):
    """Conv-TasNet's gLN: one mean and variance over (C, T)."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels, 1)), nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x):
        mean = x.mean((1, 2), keepdim=True)
        variance = (x - mean).square().mean((1, 2), keepdim=True)
        return self.weight * (x - mean) / (variance + 1e-8).sqrt() + self.bias


class CumulativeLayerNorm(nn.Module):
    """Conv-TasNet's cLN: statistics over (C, all steps so far)."""

    def forward(self, x):
        count = x.shape[1] * torch.arange(1, x.shape[2] + 1, device=x.device)
        mean = (x.sum(1).cumsum(-1) / count)[:, None]
        square = (x.square().sum(1).cumsum(-1) / count)[:, None]
        return (x - mean) / (square - mean.square()).clamp_min(0).add(1e-5).sqrt()


class ChannelwiseNorm(nn.Module):
    """Statistics over C at every step."""

    def forward(self, x):
        return F.layer_norm(x.transpose(1, -1), x.shape[1:2]).transpose(1, -1)


class EvoNormS0(nn.Module):
    """x · sigmoid(v x) over the deviation of each group."""

    def __init__(self, channels, groups):
        super().__init__()
        self.v, self.groups = nn.Parameter(torch.ones(channels, 1)), groups

    def forward(self, x):
        grouped = rearrange(x, "b (g c) t -> b g (c t)", g=self.groups)
        deviation = (grouped.var(-1, correction=0) + 1e-5).sqrt().repeat_interleave(x.shape[1] // self.groups, 1)
        return x * (self.v * x).sigmoid() / deviation[..., None]


class GlobalResponseNorm(nn.Module):
    """ConvNeXt V2's GRN on (B, T, C), with weights as after some training (they begin at zero)."""

    def __init__(self, channels):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.randn(channels)), nn.Parameter(torch.randn(channels))

    def forward(self, x):
        energy = x.norm(dim=1, keepdim=True)
        return x + self.gamma * x * energy / (energy.mean(-1, keepdim=True) + 1e-6) + self.beta


class SqueezeExcitation(nn.Module):
    """A gate per channel from the mean over time, taken in this module's own forward."""

    def __init__(self, channels):
        super().__init__()
        self.down, self.up = nn.Linear(channels, channels // 2), nn.Linear(channels // 2, channels)

    def forward(self, x):
        return x * self.up(self.down(x.mean(-1)).relu()).sigmoid()[..., None]


class DetachedNorm(nn.Module):
    """InstanceNorm whose statistics pass no gradient."""

    def forward(self, x):
        with torch.no_grad():
            variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt()


class ImagePooling(nn.Module):
    """DeepLab's branch: the mean over the image, through a convolution, back at every place."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return self.conv(x.mean((2, 3), keepdim=True)).expand_as(x)


# conditioning


class FiLM(nn.Module):
    """Scale and shift from a condition."""

    def __init__(self, condition, channels):
        super().__init__()
        self.linear = nn.Linear(condition, 2 * channels)

    def forward(self, x, condition):
        scale, shift = self.linear(F.mish(condition))[..., None].chunk(2, 1)
        return x * (1 + scale) + shift


class FiLMBlock(nn.Module):
    """Diffusion policy's residual block: conv, norm, Mish; FiLM; conv, norm, Mish."""

    def __init__(self, channels, condition, first, second):
        super().__init__()
        self.conv1, self.norm1, self.film = conv(channels, channels), first, FiLM(condition, channels)
        self.conv2, self.norm2 = conv(channels, channels), second

    def forward(self, x, condition):
        h = self.film(F.mish(self.norm1(self.conv1(x))), condition)
        return x + F.mish(self.norm2(self.conv2(h)))


class Conditional(nn.Module):
    """Convolutions around blocks that take a condition."""

    def __init__(self, channels, *blocks):
        super().__init__()
        self.inlet, self.blocks, self.outlet = conv(3, channels), nn.ModuleList(blocks), conv(channels, 3)

    def forward(self, x, condition):
        x = self.inlet(x)
        for block in self.blocks:
            x = block(x, condition)
        return self.outlet(x)


class SelfConditioned(nn.Module):
    """FiLM from the sequence's own mean over time, or from each step alone."""

    def __init__(self, channels, pooled):
        super().__init__()
        self.linear, self.pooled = nn.Linear(channels, 2 * channels), pooled

    def forward(self, x):
        heard = x.mean(-1, keepdim=True) if self.pooled else x
        scale, shift = self.linear(heard.transpose(1, 2)).transpose(1, 2).chunk(2, 1)
        return x * (1 + scale) + shift


# attention and recurrence, on (B, T, C)


class Attention(nn.Module):
    """Softmax attention of two heads: over all steps, the past, a band around each step, or windows.

    ``shift`` moves the windows to the left, which begin with the sequence otherwise.
    """

    def __init__(self, channels, causal=False, band=None, window=None, shift=0):
        super().__init__()
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.causal, self.band, self.window, self.shift = causal, band, window, shift

    def _mask(self, steps):
        at = torch.arange(steps)
        distance = at[:, None] - at
        allowed = torch.ones(steps, steps, dtype=torch.bool)
        if self.causal:
            allowed &= distance >= 0
        if self.band is not None:
            allowed &= distance.abs() <= self.band
        if self.window is not None:
            which = (at + self.shift) // self.window
            allowed &= which[:, None] == which
        return allowed

    def forward(self, x):
        q, k, v = rearrange(self.qkv(x), "b t (three n c) -> three b n t c", three=3, n=2)
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=self._mask(x.shape[1]).to(x.device))
        return self.out(rearrange(heard, "b n t c -> b t (n c)"))


class LinearAttention(nn.Module):
    """softmax(q)ᵀ(softmax(k) v): every step hears a sum over all."""

    def __init__(self, channels):
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return q.softmax(-1) @ (k.softmax(1).transpose(1, 2) @ v)


class DiTBlock(nn.Module):
    """adaLN: scale and shift from the noise level, around attention and an MLP."""

    def __init__(self, channels, condition, attention):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(channels, elementwise_affine=False), attention
        self.norm2 = nn.LayerNorm(channels, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        self.modulation = nn.Linear(condition, 6 * channels)

    def forward(self, x, condition):
        a, b, c, d, e, f = self.modulation(F.silu(condition))[:, None].chunk(6, -1)
        x = x + c * self.attention(self.norm1(x) * (1 + a) + b)
        return x + f * self.mlp(self.norm2(x) * (1 + d) + e)


class DiT(nn.Module):
    """Blocks between two linear layers; (B, T, C) and a noise level's embedding (B, E)."""

    def __init__(self, channels, condition, *attentions):
        super().__init__()
        self.inlet, self.outlet = nn.Linear(3, channels), nn.Linear(channels, 3)
        self.blocks = nn.ModuleList(DiTBlock(channels, condition, attention) for attention in attentions)

    def forward(self, x, condition):
        x = self.inlet(x)
        for block in self.blocks:
            x = block(x, condition)
        return self.outlet(x)


class Recurrent(nn.Module):
    """A recurrent layer of torch without its state."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        return self.cell(x)[0]


class NoCell(nn.Module):
    """What a recurrent layer of torch returns, without the recurrence."""

    def forward(self, x):
        return x, None


class SelectiveScan(nn.Module):
    """Mamba's recurrence: decay, input and output of the state depend on the step."""

    def __init__(self, channels, states=4):
        super().__init__()
        self.step, self.b, self.c = (
            nn.Linear(channels, channels),
            nn.Linear(channels, states),
            nn.Linear(channels, states),
        )
        self.log_rate = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(channels, 1))

    def forward(self, x):
        step, b, c = F.softplus(self.step(x)), self.b(x), self.c(x)
        decay = torch.exp(-step[..., None] * self.log_rate.exp())
        state, out = torch.zeros_like(decay[:, 0]), []
        for t in range(x.shape[1]):
            state = decay[:, t] * state + (step[:, t] * x[:, t])[..., None] * b[:, t, None]
            out.append((state * c[:, t, None]).sum(-1))
        return torch.stack(out, 1)


class SpectralConv(nn.Module):
    """FNO's layer: complex weights on the lowest frequencies; (B, C, T)."""

    def __init__(self, channels, modes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, modes, dtype=torch.cfloat) / channels)
        self.modes = modes

    def forward(self, x):
        spectrum = torch.fft.rfft(x)
        kept = torch.einsum("bim,iom->bom", spectrum[..., : self.modes], self.weight)
        return torch.fft.irfft(F.pad(kept, (0, spectrum.shape[-1] - self.modes)), n=x.shape[-1])


class LongConv(nn.Module):
    """Hyena's: a causal kernel as long as the sequence, a decaying function of position, applied through an FFT."""

    def __init__(self, channels):
        super().__init__()
        self.frequency, self.rate = nn.Parameter(torch.randn(channels, 1)), nn.Parameter(torch.rand(channels, 1))

    def forward(self, x):
        steps = x.shape[-1]
        at = torch.arange(steps, device=x.device) / 16
        kernel = torch.cos(self.frequency * at) * torch.exp(-self.rate * at)
        return torch.fft.irfft(torch.fft.rfft(x, 2 * steps) * torch.fft.rfft(kernel, 2 * steps), 2 * steps)[..., :steps]


# bottlenecks


class Quantizer(nn.Module):
    """VQ: the nearest of a codebook at every step, straight through in the backward pass."""

    def __init__(self, channels, codes=16):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(codes, channels))

    def forward(self, x):
        z = x.transpose(1, 2)
        nearest = (z[:, :, None] - self.codebook).square().sum(-1).argmin(-1)
        return (z + (self.codebook[nearest] - z).detach()).transpose(1, 2)


class UNet(nn.Module):
    """One level down and up again with a skip; ``norm(C)`` makes the norms, ``middle`` sits at the bottom."""

    def __init__(self, norm, middle, channels=8, conv_type=nn.Conv1d):
        super().__init__()
        self.inlet = nn.Sequential(conv_type(3, channels, 3, padding=1), norm(channels), nn.Mish())
        self.down = conv_type(channels, channels, 3, stride=2, padding=1)
        self.lower = nn.Sequential(conv_type(channels, channels, 3, padding=1), norm(channels), nn.Mish())
        self.middle, self.up = middle, nn.Upsample(scale_factor=2)
        self.outlet = nn.Sequential(
            conv_type(2 * channels, channels, 3, padding=1), nn.Mish(), conv_type(channels, 3, 1)
        )

    def forward(self, x):
        x = self.inlet(x)
        h = self.up(self.middle(self.lower(self.down(x))))
        return self.outlet(torch.cat([h, x], 1))


class Demucs(nn.Module):
    """Strided encoder with GLUs, something at the bottleneck, transposed decoder with skips."""

    def __init__(self, norm, middle, channels=8):
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv1d(3, channels, 8, 4, padding=2), norm(channels), nn.ReLU())
        self.glu1 = nn.Sequential(nn.Conv1d(channels, 2 * channels, 1), nn.GLU(1))
        self.down2 = nn.Sequential(nn.Conv1d(channels, channels, 4, 2, padding=1), norm(channels), nn.ReLU())
        self.glu2 = nn.Sequential(nn.Conv1d(channels, 2 * channels, 1), nn.GLU(1))
        self.middle = middle
        self.up2 = nn.Sequential(
            conv(channels, channels), nn.ConvTranspose1d(channels, channels, 4, 2, padding=1), nn.ReLU()
        )
        self.up1 = nn.Sequential(conv(channels, channels), nn.ConvTranspose1d(channels, 3, 8, 4, padding=2))

    def forward(self, x):
        one = self.glu1(self.down1(x))
        two = self.glu2(self.down2(one))
        return self.up1(one + self.up2(two + self.middle(two)))


class ConvTasNet(nn.Module):
    """Encoder, a separator of dilated depthwise blocks that makes a mask, decoder."""

    def __init__(self, norm, channels=8, dilations=(1, 2)):
        super().__init__()
        self.encoder = nn.Conv1d(1, channels, 8, 4, padding=2)
        blocks = []
        for d in dilations:
            depthwise = nn.Conv1d(channels, channels, 3, dilation=d, padding=d, groups=channels)
            blocks.append(
                Residual(
                    nn.PReLU(), norm(channels), depthwise, nn.PReLU(), norm(channels), nn.Conv1d(channels, channels, 1)
                )
            )
        self.separator = nn.Sequential(*blocks)
        self.decoder = nn.ConvTranspose1d(channels, 1, 8, 4, padding=2)

    def forward(self, x):
        w = self.encoder(x).relu()
        return self.decoder(w * self.separator(w).sigmoid())
