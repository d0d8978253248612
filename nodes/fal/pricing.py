"""Pricing: asks fal for its unit price (ask_price), and works out what a job costs.

FalBackend.estimate_price multiplies it by a plan's pixels, and comfyui/routes/estimate.py hands
the result to the node.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..errors import RemoteError
from .cancellation import Cancellation
from .client import FalClient
from .endpoints import ENDPOINT
from .error_mapping import error_of
from .schemas import Output
from .transport import amount

LOG = logging.getLogger("onereward")
UNITS = {"megapixel": "megapixel", "mp": "megapixel", "image": "image"}
TIMEOUT = (5.0, 10.0)


@dataclass(frozen=True)
class Price:
    """US dollars per unit, where the unit is "megapixel" or "image"."""

    unit_price: float
    unit: str

    def of(self, pixels: int) -> float:
        """US dollars for one image of that many pixels, about: how the service rounds megapixels
        is not published.
        """
        return self.unit_price * (pixels / 1e6 if self.unit == "megapixel" else 1.0)

    def of_units(self, units: float) -> float:
        """US dollars for what the service says it billed."""
        return self.unit_price * units


def cost_of(price: Price | None, output: Output, pixels: int | None) -> float | None:
    """US dollars of a finished job; None where neither the service nor the crop's size tells."""
    billed = billed_cost(price, output.billed_units)
    if billed is not None or price is None or not pixels:
        return billed
    return price.of(pixels) * len(output.images)


def billed_cost(price: Price | None, units: float | None) -> float | None:
    """US dollars for what the service says it billed, as far as both are known."""
    return None if price is None or units is None else price.of_units(units)


def ask_price(client: FalClient, cancellation: Cancellation) -> Price | None:
    """The endpoint's price for this account; None if the service does not tell.

    It tests the key as well, free of charge.

    Raises:
        CredentialsError: the service does not know the key.
    """
    url = f"{client.server.api_url}/models/pricing?endpoint_id={ENDPOINT}"
    try:
        reply = client.get(url, cancellation, timeout=TIMEOUT)
    except RemoteError as error:
        LOG.warning("No price: %s", error.args[0])
        return None
    if reply.status == 401:
        raise error_of(reply, server=client.server.name)
    return _read(reply.json()) if reply.ok else None


def _read(body: object) -> Price | None:
    prices = body.get("prices") if isinstance(body, dict) else None
    for item in prices if isinstance(prices, list) else []:
        if not isinstance(item, dict) or item.get("endpoint_id") != ENDPOINT:
            continue
        unit, price = _unit(item.get("unit")), amount(item.get("unit_price"))
        if unit and price is not None and item.get("currency", "USD") == "USD":
            return Price(price, unit)
    return None


def _unit(text: object) -> str | None:
    """The unit in the singular, without what stands before it; None for any other, and for a
    quantity such as "1000 images".
    """
    last = str(text).lower().split()[-1:]
    counted = any(letter.isdigit() for letter in str(text))
    return None if counted else UNITS.get("".join(last).rstrip("s"))
