"""Settings of the HTTP service."""

from __future__ import annotations

from pydantic import Field

from delineate.config import Settings


class ServingSettings(Settings):
    """What one server accepts and how much it does at once."""

    max_body_bytes: int = Field(64 * 2**20, ge=1, description="largest request body, bytes")
    pixel_limit: int = Field(
        2**26, ge=1, description="largest image, height times width; checked before decoding"
    )
    queue_length: int = Field(
        16, ge=0, description="requests that may wait beside those the engine runs; more get 503"
    )
    codec_threads: int = Field(2, ge=1, description="threads that decode images, and that encode")
    upload_timeout_s: float = Field(60.0, gt=0.0, description="longest time for a body to arrive")
    retry_after_s: int = Field(1, ge=1, description="seconds that a 503 asks to wait")
