"""How many crops go through a network at once before the memory is full."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from delineate.training.sync_batchnorm import alone
from delineate.training.world import World

_SHARE = 0.6  # of the memory: the estimate knows no workspaces, no fragments, no other process
_LOSS_COPIES = 6  # of the logits: log-softmax, softmax, truth, and their gradients
# What PyTorch, CUDA and its libraries say of a full memory in an error of no class of its own
_FULL = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_STATE_COPIES = 4  # of the weights: themselves, gradients, two moments


def activation_bytes(network: nn.Module, channels: int, crop_px: int) -> int:
    """Bytes that the backward pass of one crop keeps, as counted in a pass without arithmetic.

    Args:
        network: in training mode; it is copied, without its memory.
        channels, crop_px: of a crop.
    """
    ghost = copy.deepcopy(network).to("meta").train()
    kept: dict[int, int] = {}  # by storage: several views of one tensor count once
    alive: list[Tensor] = []  # so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    # two crops, because batch normalisation refuses a single value for a channel
    crops = torch.zeros(2, channels, crop_px, crop_px, device="meta")
    with alone(ghost), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = ghost(crops)
    outputs = [logits] if isinstance(logits, Tensor) else logits
    loss = _LOSS_COPIES * sum(output.numel() * 4 for output in outputs)
    return (sum(kept.values()) + loss) // 2


def crops_that_fit(network: nn.Module, activation: int, memory: int) -> int:
    """How many crops of ``activation`` bytes each fit beside the network; 0 when none does.

    Args:
        network: whose weights, gradients and moments take memory as well.
        activation: bytes of a crop, as from :func:`activation_bytes`.
        memory: bytes in all.
    """
    state = _STATE_COPIES * sum(p.numel() * p.element_size() for p in network.parameters())
    return max(int(_SHARE * memory) - state, 0) // max(activation, 1)


def crops_at_once(
    network: nn.Module, channels: int, crop_px: int, wanted: int, memory: int, world: World
) -> tuple[int, str | None]:
    """How many of the ``wanted`` crops of a step to take at once, 1 at least.

    Args:
        network: in training mode.
        channels, crop_px: of a crop.
        wanted: crops of a step in this process.
        memory: bytes for this process.
        world: gradients are exchanged at the same crops, so the least of all processes counts.

    Returns:
        the number, and what to tell the user when it is less than wanted.
    """
    activation = activation_bytes(network, channels, crop_px)
    fitting = min(world.from_all(crops_that_fit(network, activation, memory)))
    once = min(max(fitting, 1), wanted)
    if once == wanted:
        return once, None
    return once, (
        f"A step of {wanted} crops of {crop_px} px needs about {wanted * activation / 1e9:.1f} GB, "
        f"and {memory / 1e9:.1f} GB are there: {once} at once, and the gradients are added up."
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is one of the ways in which PyTorch says that memory is full."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)
    )
