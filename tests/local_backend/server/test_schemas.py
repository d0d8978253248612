"""The endpoint's input as a server reads it: fal's defaults, and its 422 where a rule is broken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from onereward_pack.local_backend.server.http.submit import read_job
from onereward_pack.local_backend.server.messages import Answer
from onereward_pack.local_backend.server.schemas import OneRewardInput, check_input, parse_json
from onereward_pack.local_backend.server.settings import Settings
from onereward_pack.nodes.contracts import MAX_SEED
from onereward_pack.nodes.errors import InputError
from starlette.datastructures import Headers

PICTURES = {"image_url": "https://a.example/i.png", "mask_url": "data:image/png;base64,AAAA"}
# what the endpoint's published page says
DEFAULTS = {
    "prompt": None, "negative_prompt": "nsfw", "guidance_scale": 1.0, "true_cfg": 4.0,
    "num_inference_steps": 28, "acceleration": "regular", "num_images": 1,
    "output_format": "jpeg", "seed": None, "sync_mode": False, "enable_safety_checker": True,
}  # fmt: skip
SETTINGS = Settings()


def entries(body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = check_input(body, max_images=8)
    assert isinstance(answer, Answer) and answer.status == 422
    assert answer.headers == {"x-fal-billable-units": "0"}
    json.dumps(answer.body)
    told: list[dict[str, Any]] = answer.body["detail"]
    return told


def test_what_a_body_leaves_out_is_as_the_endpoint_says() -> None:
    checked = check_input(PICTURES, max_images=8)
    assert isinstance(checked, OneRewardInput)
    assert checked.model_dump() == {**PICTURES, **DEFAULTS}


@pytest.mark.parametrize(
    ("wrong", "kind", "ctx"),
    [
        ({"num_images": 0}, "greater_than_equal", {"ge": 1}),
        ({"num_images": 9}, "less_than_equal", {"le": 8}),
        ({"num_inference_steps": 1001}, "less_than_equal", {"le": 1000}),
        ({"num_inference_steps": 2.5}, "int_from_float", None),
        ({"seed": -1}, "greater_than_equal", {"ge": 0}),
        ({"seed": 2**64}, "less_than_equal", {"le": MAX_SEED}),
        ({"seed": "five"}, "int_parsing", None),
        ({"true_cfg": 101}, "less_than_equal", {"le": 100.0}),
        ({"guidance_scale": float("nan")}, "finite_number", None),
        ({"acceleration": "turbo"}, "literal_error", {"expected": "'none', 'regular' or 'high'"}),
        ({"output_format": "webp"}, "literal_error", {"expected": "'jpeg' or 'png'"}),
        ({"prompt": 5}, "string_type", None),
        ({"prompt": "\ud800"}, "value_error", None),
        ({"negative_prompt": None}, "string_type", None),
        ({"sync_mode": "perhaps"}, "bool_parsing", None),
        ({"image_url": None}, "string_type", None),
    ],
)
def test_a_value_that_breaks_a_rule_is_told_in_fals_shape(
    wrong: dict[str, Any], kind: str, ctx: dict[str, Any] | None
) -> None:
    ((name, _),) = wrong.items()
    (entry,) = entries({**PICTURES, **wrong})
    assert (entry["loc"], entry["type"]) == (["body", name], kind)
    assert entry["url"] == f"https://docs.fal.ai/errors#{kind}"
    assert entry.get("ctx") == ctx and entry["msg"] and "input" in entry


def test_every_missing_field_has_an_entry_with_the_body_as_input() -> None:
    both = entries({"prompt": "a dog"})
    assert [entry["loc"] for entry in both] == [["body", "image_url"], ["body", "mask_url"]]
    assert {entry["type"] for entry in both} == {"missing"}
    assert both[0]["input"] == {"prompt": "a dog"}


def test_a_seed_leaves_room_for_the_seeds_of_all_pictures() -> None:
    last = {**PICTURES, "seed": MAX_SEED}
    assert isinstance(check_input(last, 8), OneRewardInput)
    (entry,) = entries({**last, "num_images": 2})
    assert (entry["loc"], entry["type"]) == (["body", "seed"], "value_error")


def test_an_echoed_picture_is_cut_short() -> None:
    body = {"image_url": "data:image/png;base64," + "A" * 10**6, "seed": -1, "nested": ["B" * 999]}
    told = entries(body)
    assert len(json.dumps(told)) < 4000 and told[0]["type"] == "missing"


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"5", b"{", b'{"a": NaN}', b'{"a": 1' + b"0" * 5000 + b"}", b"\xff\xfe{}",
     b'{"a":' * 100_000],
    ids=["empty", "list", "number", "half", "NaN", "long number", "bytes", "deep"],
)  # fmt: skip
def test_a_body_that_is_no_object_is_no_job(body: bytes) -> None:
    assert parse_json(body) is None
    with pytest.raises(InputError, match="not a JSON object"):
        read_job(body, Headers(), "k", SETTINGS)


# Headers


def read(**headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_job(json.dumps(PICTURES).encode(), Headers(named), "k", SETTINGS)[0]


def test_a_plain_submit_waits_its_turn_and_is_kept_as_long_as_the_server_keeps() -> None:
    job = read()
    assert (job.low_priority, job.start_by, job.may_retry, job.warnings) == (False, None, True, ())
    assert job.keep_seconds == job.file_seconds == SETTINGS.keep_seconds


def test_fals_headers_are_honoured() -> None:
    assert read(x_fal_queue_priority="low").low_priority
    assert read(x_fal_request_timeout="30.0").start_by == 30
    assert not read(x_fal_no_retry="Yes").may_retry
    private = read(
        x_fal_store_io="0",
        x_fal_object_lifecycle_preference='{"expiration_duration_seconds": 60}',
    )
    assert (private.keep_seconds, private.file_seconds) == (3600, 60)
    kept = read(x_fal_object_lifecycle_preference='{"expiration_duration_seconds": null}')
    assert kept.file_seconds == SETTINGS.keep_seconds
    assert read(x_fal_object_lifecycle_preference='{"expiration_duration_seconds": 0}') == read()
    longer = read(x_fal_object_lifecycle_preference='{"expiration_duration_seconds": 1e9}')
    assert longer.file_seconds == SETTINGS.keep_seconds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x_fal_queue_priority", "high"),
        ("x_fal_request_timeout", "soon"),
        ("x_fal_request_timeout", "0"),
        ("x_fal_request_timeout", "inf"),
        ("x_fal_object_lifecycle_preference", "60"),
        ("x_fal_object_lifecycle_preference", '{"expiration_duration_seconds": "60s"}'),
        ("x_fal_object_lifecycle_preference", '{"expiration_duration_seconds": -1}'),
    ],
)
def test_a_header_that_cannot_be_honoured_is_refused(name: str, value: str) -> None:
    with pytest.raises(InputError):
        read(**{name: value})


def test_a_field_that_is_not_known_is_named_in_the_jobs_log() -> None:
    body = json.dumps({**PICTURES, "sed": 5, "x" * 99: 1}).encode()
    job, refusal = read_job(body, Headers(), "k", SETTINGS)
    assert refusal is None
    assert job.warnings[0] == 'The field "sed" is not known and was ignored.'
    assert len(job.warnings[1]) < 90
