"""What a failed answer means, said in words with a remedy and without pictures or signatures."""

from __future__ import annotations

import json
import time

import pytest
from onereward_pack.nodes.errors import (
    BalanceError,
    ContentPolicyError,
    CredentialsError,
    OneRewardError,
    RateLimitError,
    RemoteError,
    RemoteTimeoutError,
    RemoteValidationError,
)
from onereward_pack.nodes.fal.error_mapping import (
    LONGEST,
    error_of,
    is_cancelled,
    read_detail,
    tidy,
)
from onereward_pack.nodes.fal.transport import REQUEST_ID, Reply
from requests.structures import CaseInsensitiveDict

PAGE = b"<html><head><title>503 Service Unavailable</title></head><body>nginx</body></html>"
PICTURE = "data:image/png;base64," + "iVBORw0KGgo+/" * 5000 + "=="


def reply(status: int, body: object, **head: str) -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in head.items()}
    return Reply(status, CaseInsensitiveDict(named), data)


def error(status: int, body: object, **head: str) -> OneRewardError:
    return error_of(reply(status, body, **head), server="fal", request_id="id-1")


def model_error(**entry: object) -> dict[str, object]:
    item = {"loc": ["body", "mask_url"], "msg": "Could not load", "type": "image_load_error"}
    return {"detail": [{**item, "input": PICTURE, **entry}]}


@pytest.mark.parametrize(("status", "kind", "remedy"), [
    (301, RemoteError, "Redirects are not followed"),
    (307, RemoteError, "Redirects are not followed"),
    (400, RemoteError, "answered 400"),
    (401, CredentialsError, "set another one"),
    (402, BalanceError, "Add credit"),
    (403, BalanceError, "may call this model"),
    (404, RemoteError, "answered 404"),
    (408, RateLimitError, "lower parallel_jobs"),
    (413, RemoteError, "answered 413"),
    (422, RemoteValidationError, "Change what it names"),
    (429, RateLimitError, "lower parallel_jobs"),
    (499, RemoteError, "answered 499"),
    (500, RemoteError, "try again later"),
    (502, RemoteError, "try again later"),
    (503, RemoteError, "try again later"),
    (504, RemoteError, "try again later"),
])  # fmt: skip
@pytest.mark.parametrize("body", [
    {"detail": "Said by the service"}, {"detail": [{"loc": ["body"], "msg": "Said by it"}]},
    {"status": "NOT_FOUND"}, PAGE, b"",
])  # fmt: skip
def test_every_status_has_its_class_and_remedy(
    status: int, kind: type[OneRewardError], remedy: str, body: object
) -> None:
    made = error(status, body)
    assert type(made) is kind and remedy in str(made) and f"fal answered {status}" in str(made)
    if isinstance(made, RemoteError):
        assert (made.status, made.request_id) == (status, "id-1")
        assert "Request id: id-1." in str(made)


def test_a_model_error_names_field_type_and_limit() -> None:
    made = error(422, model_error(ctx={"max_width": 2048, "max_height": 1024}))
    assert isinstance(made, RemoteValidationError) and made.error_type == "image_load_error"
    for part in ("Could not load", "field mask_url", "type image_load_error"):
        assert part in str(made)
    assert "limit max_width 2048, max_height 1024" in str(made)
    assert "may have been billed" in str(made)


def test_a_platform_error_is_known_by_its_body_and_else_by_its_header() -> None:
    body = {"detail": "Runner disconnected", "error_type": "runner_disconnected"}
    said = read_detail(reply(503, body, x_fal_error_type="from_the_header"))
    assert (said.text, said.type) == ("Runner disconnected", "runner_disconnected")
    assert read_detail(reply(503, PAGE, x_fal_error_type="startup")).type == "startup"
    assert read_detail(reply(503, {"detail": "x"}, x_fal_error_type="startup")).type == "startup"


@pytest.mark.parametrize(("body", "text"), [
    ({"status": "NOT_FOUND"}, "NOT_FOUND"), ({"message": "m"}, "m"), ({"error": "e"}, "e"),
    ({"detail": ""}, "no reason"), ({}, "no reason"), ({"detail": []}, "no reason"),
    ({"detail": {"a": 1}}, "{'a': 1}"), ({"detail": ["plain", "list"]}, "['plain', 'list']"),
])  # fmt: skip
def test_other_shapes_still_say_something(body: object, text: str) -> None:
    assert read_detail(reply(400, body)).text == text


@pytest.mark.parametrize("body", [PAGE, b"Bad Gateway", b"[1, 2]", b"null", b"\xff"])
def test_a_page_of_something_in_between_is_not_shown(body: bytes) -> None:
    made = error(502, body)
    assert "a web page or text of something in between" in str(made)
    assert "nginx" not in str(made) and "html" not in str(made)


@pytest.mark.parametrize("loc", [5, None, "mask_url", ["body", "mask_url", 0], {"a": 1}, [[]], []])
@pytest.mark.parametrize("ctx", [None, 5, "50", [50], {}])
def test_an_odd_entry_is_still_a_refused_field(loc: object, ctx: object) -> None:
    made = error(422, model_error(loc=loc, ctx=ctx, type=None, msg=None))
    assert isinstance(made, RemoteValidationError) and "no reason" in str(made)
    if loc == "mask_url":
        assert "field mask_url)" in str(made)


def test_the_first_item_of_a_list_keeps_its_number() -> None:
    found = read_detail(reply(422, model_error(loc=["body", "loras", 0, "path"])))
    assert found.field == "loras.0.path"


@pytest.mark.parametrize("kind", ["content_policy_violation", "no_media_generated"])
def test_refused_content_is_no_wrong_setting(kind: str) -> None:
    made = error(422, model_error(type=kind))
    assert isinstance(made, ContentPolicyError) and made.may_be_billed
    assert made.error_type == kind and "Change the prompt or the picture" in str(made)


def test_our_start_deadline_is_told_from_the_services_own() -> None:
    body = {"detail": "Request timed out", "error_type": "request_timeout"}
    ours = error(504, body, x_fal_request_timeout_type="user")
    assert isinstance(ours, RemoteTimeoutError) and "start deadline" in str(ours)
    assert not ours.may_be_billed
    assert not isinstance(error(504, body), RemoteTimeoutError)


@pytest.mark.parametrize("kind", ["client_cancelled", "client_disconnected"])
def test_a_cancelled_job_is_known_as_one(kind: str) -> None:
    assert is_cancelled(error(499, {"detail": "Cancelled", "error_type": kind}))
    assert not is_cancelled(error(500, {"detail": "x", "error_type": "internal_error"}))
    assert not is_cancelled(CredentialsError(kind))


def test_the_answers_own_id_stands_in_for_the_jobs() -> None:
    named = reply(500, b"", **{REQUEST_ID: "of-the-answer"})
    found = error_of(named, server="fal")
    assert isinstance(found, RemoteError) and found.request_id == "of-the-answer"


SECRETS = {
    "a picture": PICTURE,
    "a picture with its character set": PICTURE.replace(";", ";charset=utf-8;", 1),
    "a picture in capitals": PICTURE.replace("data:", "DATA:"),
    "a signed address": "https://storage.googleapis.com/x?X-Goog-Signature=iVBORw0KGgo&y=1",
    "one in capitals": "HTTPS://STORAGE/x?sig=iVBORw0KGgo",
    "one in quotes": "'https://v3.fal.media/x?sig=iVBORw0KGgo'",
    "two": "https://a/x?sig=iVBORw0KGgo and http://b/y?sig=iVBORw0KGgo",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
@pytest.mark.parametrize("place", ["detail", "msg", "loc", "type", "ctx", "error_type", "header"])
def test_pictures_and_signatures_are_cut_wherever_they_stand(place: str, secret: str) -> None:
    text = f"Cannot read {secret} sorry"
    bodies: dict[str, object] = {
        "detail": {"detail": text},
        "msg": model_error(msg=text),
        "loc": model_error(loc=["body", text]),
        "type": model_error(type=text),
        "ctx": model_error(ctx={"url": text}),
        "error_type": {"detail": "x", "error_type": text},
        "header": {"detail": "x"},
    }
    head = {"x_fal_error_type": text} if place == "header" else {}
    for status in (400, 422, 500):
        made = error(status, bodies[place], **head)
        assert "iVBORw0KGgo" not in str(made) and "iVBORw0KGgo" not in repr(vars(made))


@pytest.mark.parametrize("place", ["msg", "type", "loc", "ctx"])
def test_an_endless_text_is_cut(place: str) -> None:
    words: dict[str, object] = {"loc": ["body", "z" * 9000], "ctx": {"le": "z" * 9000}}
    made = error(422, model_error(**{place: words.get(place, "z" * 9000)}))
    assert str(made).count("z") < 2 * LONGEST + 10


def test_tidy_makes_one_short_line() -> None:
    assert tidy(" a\n\tb  c ") == "a b c"
    assert tidy("https://fal.ai/dashboard/keys is fine") == "https://fal.ai/dashboard/keys is fine"
    assert tidy("x" * LONGEST) == "x" * LONGEST
    assert tidy("x" * (LONGEST + 1)) == "x" * LONGEST + "..."


@pytest.mark.parametrize("piece", ["https://", "https://a/", "data:;base64", "x" * 8, " ?"])
def test_tidy_takes_no_time_for_a_hostile_text(piece: str) -> None:
    start = time.process_time()
    assert len(tidy(piece * 20_000)) <= LONGEST + 3
    assert time.process_time() - start < 5
