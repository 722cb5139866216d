"""Networks on which an audit was silently wrong, refused or never came back, each with what is right.

``python tests/audit_cases.py`` prints the table that docs/audit.md shows: what the audit says of each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Case:
    """One network and what an audit should say of it.

    Attributes:
        make: the network.
        verdict: that is right.
        like_plain: whether leakage, receptive field and blame are those of :func:`plain` too.
        inputs: its arguments; by default a random (2, 3, 128).
        settings: of the audit.
        said: words that a note or an error must have.
    """

    make: Callable[[], nn.Module]
    verdict: str
    like_plain: bool = False
    inputs: Callable[[], Any] = lambda: sequences()
    settings: dict[str, Any] = field(default_factory=dict)
    said: str = ""


def sequences(batch: int = 2, channels: int = 3, length: int = 128) -> Tensor:
    return torch.randn(batch, channels, length, generator=torch.Generator().manual_seed(1))


def plain(
    bias: bool = True, act: Any = nn.Mish, norm: Any = lambda: nn.GroupNorm(4, 16), wrap: Any = lambda part: part
) -> nn.Sequential:
    torch.manual_seed(0)
    first, last = nn.Conv1d(3, 16, 5, padding=2, bias=bias), nn.Conv1d(16, 3, 5, padding=2, bias=bias)
    return nn.Sequential(wrap(first), norm(), act(), wrap(last))


# nothing to measure


def zero_last(norm: Any = lambda: nn.GroupNorm(4, 16)) -> nn.Module:
    network = plain(norm=norm)
    nn.init.zeros_(network[3].weight)
    nn.init.zeros_(network[3].bias)
    return network


class Gated(nn.Module):
    """A residual branch behind a gate that is zero, as adaLN-Zero, ReZero and LayerScale begin."""

    def __init__(self, branch: nn.Module, learned: bool = True):
        super().__init__()
        self.branch = branch
        self.gate = nn.Parameter(torch.zeros(3, 1)) if learned else 0.0

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate * self.branch(x)


class Ignorant(nn.Module):
    """Returns the same whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.randn(3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.answer.expand(len(x), -1, x.shape[-1]) + 0 * x.detach()


# gradients that do not tell


class CentredWithoutGradient(nn.Module):
    """Statistics under no_grad."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            mean, deviation = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return (x - mean) / (deviation + 1e-3)


class StraightThrough(nn.Module):
    """A mean over time forward, the identity backward."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (x.tanh() + x.mean(-1, keepdim=True) - x).detach()


class LocalStraightThrough(nn.Module):
    """Rounds forward, the identity backward: what vector quantization does, and local."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (x.round() - x).detach()


# wrapped


class Around(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def compiled_inside(**settings: Any) -> nn.Module:
    network = plain()
    return Around(nn.Sequential(torch.compile(network[:2], **settings), network[2:]))


def compiled_in_place() -> nn.Module:
    network = plain()
    network.compile(backend="eager")
    return network


def compiled_part_in_place() -> nn.Module:
    network = plain()
    network[1].compile(backend="eager")
    return network


class CompiledForward(nn.Module):
    """The method is compiled, not the module."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()
        self.run = torch.compile(self._run, backend="eager")

    def _run(self, x: Tensor) -> Tensor:
        return self.net(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


class Saving(nn.Module):
    """Gradient checkpointing of everything but the last layer."""

    def __init__(self, reentrant: bool):
        super().__init__()
        self.net, self.reentrant = plain(), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.net[3](checkpoint(self.net[:3], x, use_reentrant=self.reentrant))


# precision


class InSinglePrecision(nn.Module):
    """Calls ``.float()`` before a layer, as mixed-precision code does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.float())


class Spectral(nn.Module):
    """A Fourier layer with complex weights: every output hears every input, by design."""

    def __init__(self, channels: int = 3, modes: int = 6):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, modes, dtype=torch.cfloat) / channels)

    def forward(self, x: Tensor) -> Tensor:
        low = torch.fft.rfft(x)[..., : self.weight.shape[-1]]
        return torch.fft.irfft(torch.einsum("bik,iok->bok", low, self.weight), n=x.shape[-1])


class SpectralBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.spectral = nn.Conv1d(3, 3, 1), Spectral()

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) + self.spectral(x)).relu()


# several outputs


class Several(nn.Module):
    """A dictionary whose first tensor is not the prediction."""

    def __init__(self, **others: Callable[[Tensor], Tensor]):
        super().__init__()
        self.net, self.others = plain(), others

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: make(x) for name, make in self.others.items()} | {"sample": self.net(x)}


def audio_unet() -> nn.Module:
    from diffusers import UNet1DModel

    torch.manual_seed(0)
    return UNet1DModel(extra_in_channels=64)


GLOBAL, LEAKS, LOCAL, UNMEASURED, REFUSED = "global", "leaks", "local", "not measured", "refused"

CASES: dict[str, Case] = {
    "as it is": Case(plain, LEAKS, True),
    "last layer zero": Case(zero_last, LEAKS, said="perturbed"),
    "last layer zero, no norm": Case(lambda: zero_last(nn.Identity), LOCAL, said="perturbed"),
    "zero gate before a norm": Case(lambda: Gated(plain()), LEAKS, said="perturbed"),
    "zero gate that is no parameter": Case(lambda: Gated(plain(), learned=False), UNMEASURED),
    "zero weight of the last norm": Case(
        lambda: (network := plain(), nn.init.zeros_(network[1].weight))[0], LEAKS, said="perturbed"
    ),
    "ReLU without bias on zeros": Case(
        lambda: plain(False, nn.ReLU, nn.Identity), LOCAL, inputs=lambda: torch.zeros(2, 3, 128), said="constant"
    ),
    "norm, on zeros": Case(plain, LEAKS, inputs=lambda: torch.zeros(2, 3, 128), said="constant"),
    "norm, on ones": Case(plain, LEAKS, inputs=lambda: torch.ones(2, 3, 128), said="constant"),
    "output without the input": Case(Ignorant, UNMEASURED, said="does not depend"),
    "statistics under no_grad": Case(lambda: plain(norm=CentredWithoutGradient), LEAKS, said="finite"),
    "straight-through statistics": Case(lambda: plain(norm=StraightThrough), LEAKS, said="finite"),
    "straight-through rounding": Case(lambda: plain(norm=LocalStraightThrough), LOCAL),
    "compiled (backend eager)": Case(lambda: torch.compile(plain(), backend="eager"), LEAKS, True),
    "compiled (default backend)": Case(lambda: torch.compile(plain()), LEAKS, True),
    "compiled, inside another module": Case(lambda: compiled_inside(backend="eager"), LEAKS, True),
    "compiled in place": Case(compiled_in_place, LEAKS, True),
    "a part compiled in place": Case(compiled_part_in_place, LEAKS, True),
    "a compiled method": Case(CompiledForward, LEAKS, True),
    "DataParallel": Case(lambda: nn.DataParallel(plain()), LEAKS, True),
    "averaged weights": Case(lambda: AveragedModel(plain()), LEAKS, True),
    "weight norm": Case(lambda: plain(wrap=weight_norm), LEAKS),
    "spectral norm": Case(lambda: plain(wrap=spectral_norm), LEAKS),
    "spectral norm, no other": Case(lambda: plain(norm=nn.Identity, wrap=spectral_norm), LOCAL),
    "jit.script": Case(lambda: torch.jit.script(plain()), REFUSED, said="jit"),
    "jit.script inside": Case(lambda: Around(torch.jit.script(plain())), REFUSED, said="jit"),
    "jit.trace": Case(lambda: torch.jit.trace(plain(norm=nn.Identity), sequences()), REFUSED, said="jit"),
    "checkpointing, reentrant": Case(lambda: Saving(True), LEAKS, True),
    "checkpointing, not reentrant": Case(lambda: Saving(False), LEAKS, True),
    ".float() inside": Case(InSinglePrecision, LEAKS, said="own precision"),
    "complex weights": Case(SpectralBlock, GLOBAL),
    "a dictionary of two sequences": Case(lambda: Several(mask=torch.ones_like), REFUSED, said="output="),
    "the same, one named": Case(lambda: Several(mask=torch.ones_like), LEAKS, True, settings={"output": "sample"}),
    "a dictionary with a loss": Case(lambda: Several(loss=lambda x: x.square().mean()), LEAKS, True),
    "UNet1DModel for audio, length 1,024": Case(
        audio_unet, GLOBAL, inputs=lambda: (sequences(1, 2, 1024), torch.tensor([10]))
    ),
}


def row(case: Case) -> str:
    """What the audit says of a case, in one line."""
    from norm_study.audit import audit

    start = time.perf_counter()
    settings = dict(case.settings)
    try:
        try:
            report = audit(case.make(), case.inputs(), **settings)
        except TypeError as error:
            if "unexpected keyword" not in str(error):
                raise
            report = audit(case.make(), case.inputs())
    except Exception as error:
        words = " ".join(str(error).split())
        return f"{type(error).__name__}: {words[:110]} | {time.perf_counter() - start:.1f} s"
    leakage = "none" if report.leakage is None else f"{100 * report.leakage.value:.3g} %"
    moved = ["none" if m.value is None else f"{m.value:.3g}" for m in report.finite]
    blamed = ", ".join(m.name or "the network" for m in report.leaking_modules[:3]) or "nothing"
    verdict = getattr(report, "verdict", "")
    return (
        f"{verdict} | leakage {leakage}, reach {report.receptive_field}, movement {' '.join(moved)}"
        f", blames {blamed}; notes: {len(report.notes)} | {time.perf_counter() - start:.1f} s"
    )


def main() -> None:
    """One line per case whose name contains an argument; all of them without."""
    for name, case in CASES.items():
        if len(sys.argv) < 2 or any(part in name for part in sys.argv[1:]):
            print(f"{name} | {case.verdict} | {row(case)}", flush=True)


if __name__ == "__main__":
    main()
