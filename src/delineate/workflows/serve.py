"""``delineate serve``: a bundle behind HTTP."""

from __future__ import annotations

from fastapi import FastAPI

from delineate.bundle.load import Bundle
from delineate.serving.app import create_app
from delineate.serving.model import ServedModel
from delineate.serving.settings import ServingSettings

_DEFAULT_SETTINGS = ServingSettings()


def serving_app(bundle: Bundle, settings: ServingSettings = _DEFAULT_SETTINGS) -> FastAPI:
    """The HTTP service of a loaded bundle, for uvicorn or any other ASGI server.

    The bundle's canary, where it has one, is compared with its golden outputs first.

    Raises:
        BundleError: this engine or machine computes something else than the one that exported it.
    """
    bundle.verify()
    manifest = bundle.manifest
    model = ServedModel(
        name=manifest.name,
        version=manifest.version,
        predictor=bundle,
        colours=manifest.colours,
        tiling=manifest.tiling,
        postprocessing=manifest.postprocessing,
    )
    return create_app(model, settings)
