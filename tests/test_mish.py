"""The activation against torch's own, in value, gradient, second derivative and under vmap."""

import pytest
import torch
import torch.nn.functional as F

from planner.mish import _Mish, mish


def extremes(dtype: torch.dtype) -> torch.Tensor:
    far = torch.tensor([-1e4, -1e2, -30.0, -20.0, 0.0, 20.0, 30.0, 1e2, 1e4], dtype=dtype)
    return torch.cat((far, torch.linspace(-25, 25, 20_001, dtype=dtype)))


def cheap(x: torch.Tensor) -> torch.Tensor:
    """Ours at any size."""
    return _Mish.apply(x)[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_equals_torchs_mish_and_its_gradient(dtype, tolerance):
    x = extremes(dtype).requires_grad_()
    assert type(mish(x).grad_fn).__name__ == "_MishBackward", "large enough to take the cheap way"
    pairs = [(f(x), *torch.autograd.grad(f(x).sum(), x)) for f in (mish, F.mish)]
    for ours, torchs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, torchs, atol=tolerance, rtol=tolerance)


def test_gradients_are_the_numerical_ones_twice():
    x = torch.linspace(-6, 6, 25, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(cheap, x)
    assert torch.autograd.gradgradcheck(cheap, x)


def test_value_alone_is_that_of_training():
    x = extremes(torch.float64).requires_grad_()
    with torch.no_grad():
        value = mish(x)
    torch.testing.assert_close(value, mish(x).detach(), atol=0, rtol=1e-14)


def test_vmap_goes_through():
    x = torch.randn(3, 40, dtype=torch.float64)
    got = torch.func.vmap(torch.func.jacrev(cheap))(x)
    torch.testing.assert_close(got, torch.func.vmap(torch.func.jacrev(F.mish))(x))


@pytest.mark.parametrize(("shape", "dtype"), [((2, 3), torch.float32), ((200, 100), torch.bfloat16)])
def test_small_and_half_precision_inputs_are_torchs(shape, dtype):
    x = torch.randn(shape, dtype=dtype)
    assert torch.equal(mish(x), F.mish(x))
