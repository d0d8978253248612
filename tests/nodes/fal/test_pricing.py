"""The price of a job: read where the service tells it, unknown in every other case."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing

import pytest
from fakes import fal_faults
from fakes.backend import Interrupted, RecordingProgress
from fakes.fal_edits import hurry, server_of
from fakes.fal_faults import Fault
from fakes.fal_server import ENDPOINT, FalServer
from onereward_pack.nodes.errors import CredentialsError
from onereward_pack.nodes.fal.cancellation import Cancellation
from onereward_pack.nodes.fal.client import FalClient
from onereward_pack.nodes.fal.pricing import Price, ask_price

ITEM = {"endpoint_id": ENDPOINT, "unit_price": 0.035, "unit": "megapixels", "currency": "USD"}


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    hurry(monkeypatch, 20)
    with FalServer() as server:
        yield server


def ask(fal: FalServer, key: str = "id:secret") -> Price | None:
    with closing(FalClient(server_of(fal), key)) as client:
        return ask_price(client, Cancellation(RecordingProgress(), 30))


def told(fal: FalServer, body: object) -> Price | None:
    fal.fail("pricing", fal_faults.answer(200, body))
    return ask(fal)


def test_the_price_is_asked_for_this_endpoint_with_the_key(fal: FalServer) -> None:
    assert ask(fal) == Price(0.035, "megapixel")
    [asked] = fal.requests
    assert asked.query == {"endpoint_id": ENDPOINT}
    assert asked.headers["authorization"] == "Key id:secret"


UNITS = {
    "megapixel": "megapixel", "megapixels": "megapixel", "Megapixels": "megapixel",
    "processed megapixels": "megapixel", "MP": "megapixel", "image": "image", "IMAGES": "image",
    "output images": "image",
}  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_read_in_one_or_many_with_a_word_before_it(fal: FalServer, unit: str) -> None:
    found = told(fal, {"prices": [{**ITEM, "unit": unit}]})
    assert found is not None and found.unit == UNITS[unit]


def test_the_endpoints_own_price_is_taken_among_others(fal: FalServer) -> None:
    other = {**ITEM, "endpoint_id": "fal-ai/other", "unit_price": 9}
    dollars = {name: ITEM[name] for name in ("endpoint_id", "unit_price", "unit")}
    found = told(fal, {"prices": [None, 5, {}, other, {**ITEM, "currency": "EUR"}, dollars]})
    assert found == Price(0.035, "megapixel")


@pytest.mark.parametrize("change", [
    {"endpoint_id": "fal-ai/onereward-2"}, {"unit": "seconds"}, {"unit": "1000 images"},
    {"unit": "images per second"}, {"unit": ""}, {"unit": None}, {"unit": 5},
    {"currency": "EUR"}, {"currency": None}, {"unit_price": None}, {"unit_price": "free"},
    {"unit_price": -0.035}, {"unit_price": True}, {"unit_price": float("inf")},
    {"unit_price": float("nan")}, {"unit_price": 10**400}, {"unit_price": [0.035]},
])  # fmt: skip
def test_a_price_that_cannot_be_understood_is_unknown(
    fal: FalServer, change: dict[str, object]
) -> None:
    assert told(fal, {"prices": [{**ITEM, **change}]}) is None


@pytest.mark.parametrize(
    "body", [{}, [], None, 5, {"prices": None}, {"prices": {}}, {"prices": []}]
)
def test_an_answer_without_prices_is_no_price(fal: FalServer, body: object) -> None:
    assert told(fal, body) is None


def test_a_price_of_nothing_is_a_price(fal: FalServer) -> None:
    assert told(fal, {"prices": [{**ITEM, "unit_price": 0}]}) == Price(0.0, "megapixel")


FAULTS = {
    "not found": fal_faults.not_found(),
    "locked": fal_faults.locked(),
    "an ingress page": fal_faults.ingress(502),
    "a login page": fal_faults.html_page(),
    "a reset": fal_faults.reset_after_body(),
    "cut short": fal_faults.truncated(),
    "a redirect": fal_faults.redirect("https://evil.com"),
    "without end": fal_faults.huge_body(20),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_service_that_does_not_tell_has_no_price(fal: FalServer, fault: Fault) -> None:
    fal.fail("pricing", fault, 9)
    assert ask(fal) is None


def test_a_fault_that_passes_does_not_cost_the_price(fal: FalServer) -> None:
    fal.fail("pricing", fal_faults.ingress(503))
    fal.fail("pricing", fal_faults.reset_after_body())
    assert ask(fal) == Price(0.035, "megapixel") and len(fal.requests) == 3


def test_a_service_that_is_gone_is_logged_without_the_key(
    fal: FalServer, caplog: pytest.LogCaptureFixture
) -> None:
    fal.down()
    with caplog.at_level(logging.INFO, "onereward"):
        assert ask(fal) is None
    assert "127.0.0.1" in caplog.text and "secret" not in caplog.text


def test_a_key_that_is_refused_is_an_error_and_not_an_unknown_price(fal: FalServer) -> None:
    with pytest.raises(CredentialsError, match="answered 401") as failure:
        ask(fal, "id:wrong")
    assert "wrong" not in str(failure.value) and len(fal.requests) == 1


def test_a_cancel_ends_the_question(fal: FalServer) -> None:
    fal.fail("pricing", fal_faults.silence(5))
    with closing(FalClient(server_of(fal), fal.key)) as client, pytest.raises(Interrupted):
        ask_price(client, Cancellation(RecordingProgress(cancel_at=0), 30))


def test_a_megapixel_is_a_million_pixels_and_an_image_is_an_image() -> None:
    assert Price(0.035, "megapixel").of(1024 * 1024) == pytest.approx(0.03670016)
    assert Price(0.035, "image").of(1024 * 1024) == 0.035
    assert Price(0.5, "megapixel").of_units(3.0) == Price(0.5, "image").of_units(3.0) == 1.5
