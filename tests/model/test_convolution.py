"""The recomputing convolution: values and gradients of the plain layers, in less memory."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional

from earteach.model.convolution import NormSiLUConv


def plainly(layer: NormSiLUConv, x: torch.Tensor) -> torch.Tensor:
    return layer.conv(functional.silu(layer.norm(x)))


def layer_of(before: int, after: int) -> NormSiLUConv:
    torch.manual_seed(0)
    layer = NormSiLUConv(before, after)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def test_gradients_are_those_of_finite_differences():
    layer = layer_of(6, 4).double()
    x = torch.randn(2, 6, 5, 5, dtype=torch.double, requires_grad=True)
    names, weights = zip(*layer.named_parameters(), strict=True)

    def call(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *weights))


@pytest.mark.parametrize("autocast", [False, True])
def test_values_and_gradients_are_those_of_the_plain_layers(autocast):
    layer = layer_of(16, 8)
    x = torch.randn(2, 16, 12, 12)
    results = []
    for call in (layer.__call__, lambda x: plainly(layer, x)):
        layer.zero_grad()
        leaf = (x.bfloat16() if autocast else x).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = call(leaf)
        out.float().square().sum().backward()
        results.append([out.detach(), leaf.grad, *(p.grad for p in layer.parameters())])
    with torch.inference_mode():
        assert torch.equal(layer(x), plainly(layer, x))
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def saved_numbers(call, x: torch.Tensor) -> int:
    """The numbers that a forward pass saves for the backward pass, each storage once."""
    saved: dict[int, int] = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        saved[value.untyped_storage().data_ptr()] = value.numel()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        out = call(x)
    assert out.requires_grad
    return sum(saved.values())


def test_only_the_input_is_saved_for_the_backward_pass():
    layer = layer_of(16, 8)
    x = torch.randn(2, 16, 12, 12, requires_grad=True)
    weights = sum(p.numel() for p in layer.parameters())
    assert x.numel() <= saved_numbers(layer, x) <= x.numel() + weights
    assert saved_numbers(lambda x: plainly(layer, x), x) > 3 * x.numel()


def test_on_other_devices_the_norm_gets_values_of_its_parameters_dtype(monkeypatch):
    """CUDA's kernel refuses bfloat16 beside float32 parameters; "meta" stands for such a device."""
    dtypes: list[tuple[torch.dtype, torch.dtype]] = []
    original = functional.group_norm

    def spy(x, groups, scale, shift, eps):
        dtypes.append((x.dtype, scale.dtype))
        return original(x, groups, scale, shift, eps)

    monkeypatch.setattr(functional, "group_norm", spy)
    # "meta" does not support these.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    monkeypatch.setattr(torch, "autocast", lambda device, enabled: nullcontext())
    layer = layer_of(16, 8).to("meta")
    layer.conv.to(torch.bfloat16)  # as autocast passes it
    x = torch.empty(2, 16, 6, 6, device="meta", dtype=torch.bfloat16, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert dtypes == [(torch.float32, torch.float32)] * 2
    assert out.dtype == x.grad.dtype == layer.conv.weight.grad.dtype == torch.bfloat16
    assert layer.norm.weight.grad.dtype == torch.float32
