"""Encoders: which names are known, where their weights come from, and under what licence."""

from __future__ import annotations

import difflib
import socket
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub.constants
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from delineate.errors import ModelError

# Names that segmentation-models-pytorch had under "timm-" before it opened all of timm as "tu-"
_RENAMED_PREFIXES = {"timm-efficientnet-": "tu-tf_efficientnet_", "timm-": "tu-"}
# What users write, and what timm calls it
_ALIASES = {
    "mobilenet_v3_large": "tu-mobilenetv3_large_100",
    "mobilenet_v3_small": "tu-mobilenetv3_small_100",
}
_PERMISSIVE = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0"}
_PICKLES = {".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar"}
# The part of a published classifier that an encoder does not have
_HEADS = (
    "fc.",
    "_fc.",
    "classifier.",
    "aux_classifier.",
    "head.",
    "last_linear.",
    "_conv_head.",
    "_bn1.",
)
_HOW_TO_GO_ON = (
    "Train from random weights with --encoder-weights none, or name a .safetensors file with "
    "--encoder-weights PATH."
)


def resolve_encoder(name: str) -> str:
    """The name by which segmentation-models-pytorch knows the encoder a user named.

    Its own names are taken as they are (``resnet18``, ``efficientnet-b4``); any other name of
    timm becomes ``tu-NAME``, and the retired ``timm-NAME`` becomes its successor.

    Raises:
        ModelError: a ``mit_*`` encoder, whose licence forbids commercial use, or an unknown name.
    """
    plain = name.strip().lower()
    if plain.removeprefix("timm-").removeprefix("tu-").startswith(("mit_", "mit-")):
        raise ModelError(
            "the MiT encoders (SegFormer) are under a licence that forbids commercial use",
            where=f"encoder {name}",
            mend="Use another encoder, for example --encoder efficientnet-b4 or "
            "--encoder tu-convnext_tiny.",
        )
    known = {n for n in smp.encoders.get_encoder_names() if not n.startswith(("mit_", "timm-"))}
    if plain in known:
        return plain
    plain = _ALIASES.get(plain, plain)
    for old, new in _RENAMED_PREFIXES.items():
        if plain.startswith(old):
            plain = new + plain.removeprefix(old)
    model = plain.removeprefix("tu-")
    if timm.is_model(model.split(".")[0]):
        return f"tu-{model}"
    every = sorted(known | {f"tu-{m}" for m in timm.list_models()})
    # Close by the name itself or, without its prefix, by timm's name for it
    close = difflib.get_close_matches(plain, every, n=3, cutoff=0.5)
    close += [
        f"tu-{m}" for m in difflib.get_close_matches(model, timm.list_models(), n=2, cutoff=0.7)
    ]
    raise ModelError(
        "no encoder of this name is known",
        where=f"encoder {name}",
        mend=f"Closest: {', '.join(dict.fromkeys(close))}."
        if close
        else "Try resnet18, efficientnet-b4 or tu-convnext_tiny.",
    )


def weights_source(weights: str | None, encoder: str) -> str | Path | None:
    """Where the encoder's weights come from: nowhere, a published set, or a file.

    Args:
        weights: the option's value: None or 'none', 'imagenet', or a path.
        encoder: a name given by :func:`resolve_encoder`.

    Raises:
        ModelError: the word is unknown, the file is absent or a pickle, there is no such
            published set, or its licence is not a permissive one.
    """
    if weights is None or weights == "none":
        return None
    path = weights_file(weights)
    if path is not None:
        return path
    where = f"--encoder-weights {weights}"
    published = _published(encoder)
    if weights not in published:
        raise ModelError(
            f"is neither a .safetensors file nor weights published for {encoder}",
            where=where,
            mend=f"Use {', '.join(['none', *published, 'or the path of a .safetensors file'])}.",
        )
    if encoder.startswith("tu-"):
        _refuse_licence(encoder.removeprefix("tu-"), where)
    return weights


def weights_file(weights: str | None) -> Path | None:
    """The .safetensors file that the option names; None where it names none.

    Raises:
        ModelError: the file is absent or a pickle.
    """
    path = Path(weights or "")
    where = f"--encoder-weights {weights}"
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ModelError("no such file", where=where)
        return path
    if path.suffix in _PICKLES:
        raise ModelError(
            "is a pickle, which can run code when it is loaded, and is never opened",
            where=where,
            mend='Convert it where you trust it: python -c "import torch, safetensors.torch; '
            f"safetensors.torch.save_file(torch.load('{path.name}', weights_only=True), "
            f"'{path.stem}.safetensors')\"",
        )
    return None


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"is no readable .safetensors file ({error})", where=path) from error


def _published(encoder: str) -> list[str]:
    if encoder.startswith("tu-"):
        return ["imagenet"] if timm.is_model_pretrained(encoder.removeprefix("tu-")) else []
    return list(smp.encoders.encoders[encoder]["pretrained_settings"])


def _refuse_licence(model: str, where: str) -> None:
    config = timm.get_pretrained_cfg(model)
    licence = None if config is None else config.license
    if licence not in _PERMISSIVE:
        raise ModelError(
            f"timm gives the licence of the weights of {model} as {licence or 'unknown'}, "
            "which is not known to allow commercial use, so they are not downloaded",
            where=where,
            mend="If the licence allows what you do, fetch them yourself and name the file with "
            "--encoder-weights PATH; otherwise use --encoder-weights none.",
        )


def smp_weights(source: str | Path | None, encoder: str) -> str | bool | None:
    """``source`` in the form that segmentation-models-pytorch takes; files are loaded later."""
    if not isinstance(source, str):
        return None
    return True if encoder.startswith("tu-") else source


@contextmanager
def constructing(encoder: str, source: str | Path | None) -> Iterator[None]:
    """Turn what goes wrong while an encoder is built or downloaded into a ModelError.

    The hub's client asks five times over 50 seconds when the name server does not answer, so
    that is found out first, and only its cache is used then.
    """
    downloads = isinstance(source, str)
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    try:
        if downloads and not before and not _hub_has_an_address():
            huggingface_hub.constants.HF_HUB_OFFLINE = True
        with warnings.catch_warnings():
            # timm announces renamed models and features of its own that are not ours to mend
            warnings.simplefilter("ignore")
            yield
    except ModelError:
        raise
    except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"the encoder does not fit this architecture ({_first_line(error)})",
            where=f"encoder {encoder}",
            mend="Use another encoder, for example resnet18 or efficientnet-b4.",
        ) from error
    except Exception as error:
        if not downloads:
            raise
        raise ModelError(
            f"the {source} weights of {encoder} cannot be downloaded, and the cache does not "
            f"hold them ({type(error).__name__})",
            where=f"--encoder-weights {source}",
            mend=_HOW_TO_GO_ON,
        ) from error
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _hub_has_an_address() -> bool:
    """Whether the hub can be asked at all; a proxy resolves names itself, so it counts as yes."""
    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(huggingface_hub.constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def load_encoder(encoder: nn.Module, path: Path, channels: int) -> None:
    """Fill ``encoder`` with the state dict in a .safetensors file.

    Keys may carry the prefix ``encoder.``, ``backbone.`` or ``model.``, and timm's names of a
    whole classifier are understood; heads are left out. The first convolution is fitted to another
    channel count as timm does it: summed for one channel, else repeated and scaled so that the
    response keeps its size.

    Raises:
        ModelError: the file cannot be read, or its tensors are not those of the encoder.
    """
    stored = read_safetensors(path)
    own = encoder.state_dict()
    names = {_canonical(key): key for key in own}
    found: dict[str, torch.Tensor] = {}
    unexpected: list[str] = []
    for key, tensor in stored.items():
        name = names.get(_canonical(key))
        if name is not None:
            found[name] = tensor
        elif not _bare(key).startswith(_HEADS):
            unexpected.append(key)
    first = next(n for n, m in encoder.named_modules() if isinstance(m, nn.Conv2d)) + ".weight"
    if first in found:
        found[first] = fit_channels(found[first], own[first].shape[1], channels)
    # Files older than the counter lack it, and nothing but the counter depends on it
    missing = [k for k in own if k not in found and not k.endswith("num_batches_tracked")]
    other = [k for k, v in found.items() if v.shape != own[k].shape]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    if any(problems.values()):
        raise ModelError(
            f"does not hold the weights of this encoder: {described(problems)}",
            where=path,
            mend=f"It holds {len(stored)} tensors where the encoder has {len(own)}: check "
            "--encoder.",
        )
    encoder.load_state_dict(own | found)


def _bare(key: str) -> str:
    return key.removeprefix("encoder.").removeprefix("backbone.").removeprefix("model.")


def _canonical(key: str) -> str:
    # timm's feature extractor flattens "stages.0.conv" to "stages_0.conv"
    return _bare(key).replace(".", "_")


def described(problems: dict[str, list[str]]) -> str:
    """How many keys have which problem, and the first three of each."""
    return "; ".join(
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in problems.items()
        if keys
    )


def fit_channels(weight: torch.Tensor, own: int, channels: int) -> torch.Tensor:
    """The first convolution's weight (O, I, kh, kw) for ``channels`` inputs instead of I.

    Args:
        weight: as stored.
        own: second dimension of the network's own weight; where it is not ``channels`` (grouped
            or space-to-depth stems) the weight is returned as it is.
        channels: channels of the images.
    """
    stored = weight.shape[1]
    if own != channels or stored == channels:
        return weight
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = -(-channels // stored)
    return weight.repeat(1, repeats, 1, 1)[:, :channels] * (stored / channels)
