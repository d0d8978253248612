"""fal's words: which jobs are the same, and what is made of any JSON that comes back."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from onereward_pack.nodes.contracts import EditRecipe, EditRequest, EditTask, FalSpec
from onereward_pack.nodes.errors import InputError, RemoteError
from onereward_pack.nodes.fal.endpoints import Server
from onereward_pack.nodes.fal.schemas import (
    check_request_id,
    headers,
    job_key,
    payload,
    read_output,
    read_status,
    read_submission,
    submission_at,
)
from onereward_pack.nodes.fal.transport import Reply
from requests.structures import CaseInsensitiveDict

ID = "764cabcf-b745-4b3e-ae38-1200304cf45b"
SERVER = Server("fal", "https://queue.fal.run", "https://rest.fal.ai", "https://api.fal.ai/v1")
OURS = f"https://queue.fal.run/fal-ai/onereward/requests/{ID}"
RECIPE = EditRecipe(task=EditTask.FILL, prompt="a cat", seed=7)
BAD_IDS = [
    "", ".", "..", "a/b", "../x", "a.b", "a\n", "a b", "-a", "a?b", "a%2Fb", "\u00e4", "a" * 129,
]  # fmt: skip
NOT_OBJECTS = [
    b"", b"null", b"5", b'"text"', b"[]", b"{", b"\xff\xfe", b"<html></html>", b"[" * 100_000,
]  # fmt: skip


def reply(body: object, status: int = 200, **head: str) -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in head.items()}
    return Reply(status, CaseInsensitiveDict(named), data)


def request(**words: Any) -> EditRequest:
    image = (torch.arange(16 * 32 * 3) % 256 / 255).reshape(1, 16, 32, 3)
    mask = torch.zeros(1, 16, 32)
    mask[:, 4:8, 4:8] = 1
    made = RECIPE.on(image, mask, seed=7, num_images=1)
    return dataclasses.replace(made, **words)


def key(spec: FalSpec | None = None, server: Server = SERVER, **words: Any) -> str:
    return job_key(request(**words), spec or FalSpec(), server)


WORDS = {
    "prompt": "a dog", "negative_prompt": "", "seed": 8, "num_inference_steps": 29,
    "guidance_scale": 1.5, "true_cfg": 4.5, "acceleration": "none", "num_images": 2,
}  # fmt: skip


@pytest.mark.parametrize("word", [f.name for f in dataclasses.fields(EditRecipe)])
def test_every_word_of_a_request_that_is_sent_names_the_job(word: str) -> None:
    if word == "task":  # decides the other words, and is not sent itself
        assert key(task=EditTask.TEXT) == key()
    else:
        assert key(**{word: WORDS[word]}) != key()


@pytest.mark.parametrize("name", ["image", "mask"])
@pytest.mark.parametrize("at", [(0, 0, 0), (0, 15, 31)])
def test_one_step_of_one_pixel_makes_another_job(name: str, at: tuple[int, ...]) -> None:
    pixels = getattr(request(), name).clone()
    pixels[at] = (pixels[at] + 0.5) % 1
    assert key(**{name: pixels}) != key()


def test_the_same_bytes_in_another_shape_are_another_job() -> None:
    pixels, mask = request().image, request().mask
    assert key(image=pixels.reshape(1, 32, 16, 3), mask=mask.reshape(1, 32, 16)) != key()


def test_what_the_file_would_hold_decides_and_not_the_tensor() -> None:
    assert key(image=request().image + 1e-4) == key(image=request().image.half()) == key()


@pytest.mark.parametrize("change", [{"output_format": "jpeg"}, {"enable_safety_checker": False}])
def test_a_setting_that_changes_the_picture_makes_another_job(change: dict[str, Any]) -> None:
    assert key(FalSpec(**change)) != key()


@pytest.mark.parametrize("change", [
    {"private": True}, {"priority": "low"}, {"start_deadline": 60}, {"deadline": 60},
    {"run_cap": 0.0}, {"session_cap": 0.0}, {"parallel_jobs": 1}, {"on_flagged": "return input"},
])  # fmt: skip
def test_a_setting_of_the_transport_finds_the_same_job(change: dict[str, Any]) -> None:
    assert key(FalSpec(**change)) == key()


def test_another_server_makes_another_job_and_another_name_does_not() -> None:
    assert key(server=dataclasses.replace(SERVER, queue_url="https://gpu")) != key()
    assert key(server=dataclasses.replace(SERVER, name="same place")) == key()


def test_the_body_is_what_the_endpoint_documents() -> None:
    assert payload(request(), FalSpec(private=True), "image", "mask") == {
        "image_url": "image", "mask_url": "mask", "prompt": "a cat", "negative_prompt": "nsfw",
        "guidance_scale": 1.0, "true_cfg": 4.0, "num_inference_steps": 28,
        "acceleration": "regular", "num_images": 1, "output_format": "png", "seed": 7,
        "sync_mode": True, "enable_safety_checker": True,
    }  # fmt: skip


def test_the_headers_say_what_the_settings_say() -> None:
    plain = headers(FalSpec())
    assert plain["x-app-fal-disable-fallback"] == "true"
    assert plain["X-Fal-Queue-Priority"] == "normal"
    assert set(plain) == {"Content-Type", "x-app-fal-disable-fallback", "X-Fal-Queue-Priority"}
    asked = headers(FalSpec(private=True, priority="low", start_deadline=30))
    assert asked["X-Fal-Queue-Priority"] == "low" and asked["X-Fal-Request-Timeout"] == "30.0"
    assert asked["X-Fal-Store-IO"] == "0"
    kept = json.loads(asked["X-Fal-Object-Lifecycle-Preference"])
    assert kept == {"expiration_duration_seconds": 60}


@pytest.mark.parametrize("text", BAD_IDS)
def test_what_cannot_be_a_request_id_never_becomes_an_address(text: str) -> None:
    with pytest.raises(InputError, match="no request id.*the report of the run"):
        check_request_id(text)
    with pytest.raises(InputError):
        submission_at(SERVER, text)
    assert read_submission(reply({"request_id": text}), SERVER) is None


def test_a_request_id_of_the_longest_kind_is_one() -> None:
    assert check_request_id("a" * 128) and check_request_id(ID) and check_request_id("019_a-B")


def test_an_accepted_job_is_followed_where_the_service_says() -> None:
    told = {"status_url": OURS + "/s", "response_url": OURS + "/r", "cancel_url": OURS + "/c"}
    job = read_submission(reply({"request_id": ID, **told}), SERVER)
    assert job is not None
    assert (job.request_id, job.status_url, job.response_url, job.cancel_url) == (
        ID, OURS + "/s", OURS + "/r", OURS + "/c"
    )  # fmt: skip


@pytest.mark.parametrize("url", [
    "https://evil.com/s", "https://queue.fal.run@evil.com/s", "https://evil.com\\@queue.fal.run/s",
    "http://queue.fal.run/s", "/s", "", None, 5, ["https://queue.fal.run/s"], "https://[",
    "https://fal.media\u2100/x",
])  # fmt: skip
def test_an_address_elsewhere_is_put_together_here_instead(url: object) -> None:
    told = {"status_url": url, "response_url": url, "cancel_url": url}
    job = read_submission(reply({"request_id": ID, **told}), SERVER)
    assert job == submission_at(SERVER, ID) and job.status_url == OURS + "/status"


@pytest.mark.parametrize("body", [*NOT_OBJECTS, {}, {"request_id": 5}, {"request_id": [ID]}])
def test_an_answer_that_names_no_job_is_none(body: object) -> None:
    assert read_submission(reply(body), SERVER) is None


def test_a_status_is_read_with_its_log_lines() -> None:
    odd = [{"message": ""}, {"level": "INFO"}, "text", None]
    logs = [{"message": "one"}, *odd, {"message": "2\n3"}]
    status = read_status(reply({"status": "IN_QUEUE", "queue_position": 3, "logs": logs}), ID)
    assert (status.state, status.queue_position, status.logs) == ("IN_QUEUE", 3, ("one", "2 3"))
    assert not status.completed and not status.failed
    for name in ("error", "error_type"):
        ended = read_status(reply({"status": "COMPLETED", name: "runner_disconnected"}), ID)
        assert ended.completed and ended.failed


@pytest.mark.parametrize("logs", [None, [], {}, 5, True, "text", [5], {"message": "x"}])
@pytest.mark.parametrize("position", [None, "3", 1.5, [], {}])
def test_odd_logs_and_places_do_not_lose_the_job(logs: object, position: object) -> None:
    body = {"status": "COMPLETED", "logs": logs, "queue_position": position}
    status = read_status(reply(body), ID)
    assert status.completed and status.logs == () and status.queue_position is None


@pytest.mark.parametrize("body", [
    *NOT_OBJECTS, {}, {"status": "FAILED"}, {"status": 5}, {"status": ["COMPLETED"]},
    {"status": {}}, {"status": "completed"},
])  # fmt: skip
def test_what_is_no_status_is_said_with_the_request_id(body: object) -> None:
    with pytest.raises(RemoteError, match="status of the job cannot be read") as failure:
        read_status(reply(body), ID)
    assert failure.value.request_id == ID and failure.value.may_be_billed


def test_a_result_is_read_with_what_it_says_about_itself() -> None:
    body = {
        "images": [{"url": "https://v3.fal.media/x.png", "width": 64, "height": 48, "size": 1}],
        "seed": 2**63, "has_nsfw_concepts": [True], "prompt": "a cat", "timings": {"inference": 2},
    }  # fmt: skip
    output = read_output(reply(body, x_fal_billable_units="1.05"), ID)
    assert [dataclasses.astuple(file) for file in output.images] == [
        ("https://v3.fal.media/x.png", 64, 48)
    ]
    assert (output.seed, output.has_nsfw_concepts, output.prompt) == (2**63, (True,), "a cat")
    assert (output.timings, output.billed_units) == ({"inference": 2.0}, 1.05)


ONE = {"images": [{"url": "data:,"}]}


@pytest.mark.parametrize("odd", [
    {"seed": "7"}, {"seed": 1.5}, {"seed": []}, {"prompt": 5}, {"prompt": None}, {"timings": 5},
    {"timings": []}, {"timings": {"a": "b", "c": None}}, {"has_nsfw_concepts": None},
    {"has_nsfw_concepts": []}, {"has_nsfw_concepts": [None]}, {"has_nsfw_concepts": 0},
    {"timings": {"a": 10**400}},
    {"images": [{"url": "data:,", "width": "64", "height": None}]},
    {"images": [{"url": "data:,", "width": 64.5, "height": {}}]},
])  # fmt: skip
def test_odd_words_beside_the_images_are_left_out(odd: dict[str, object]) -> None:
    output = read_output(reply({**ONE, **odd}), ID)
    assert len(output.images) == 1 and output.images[0].url == "data:,"
    assert (output.seed, output.prompt, dict(output.timings)) == (None, None, {})
    assert (output.images[0].width, output.images[0].height) == (None, None)
    assert output.has_nsfw_concepts == (False,)


# A flag that cannot be read may be one: it must not crash a paid result, nor count as "clean".
@pytest.mark.parametrize("flags", [True, {"0": True}, {"a": 1}, 1, "true"])
def test_flags_of_another_shape_are_taken_as_flagged_or_refused(flags: object) -> None:
    try:
        output = read_output(reply({**ONE, "has_nsfw_concepts": flags}), ID)
    except RemoteError as error:
        assert error.request_id == ID and error.may_be_billed
    else:
        assert output.has_nsfw_concepts == (True,)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "-3", "", "free", "1,5"])
def test_units_that_are_no_amount_are_not_told(text: str) -> None:
    assert read_output(reply(ONE, x_fal_billable_units=text), ID).billed_units is None


def test_there_are_as_many_flags_as_images() -> None:
    images = [{"url": "data:,"}] * 3
    short = read_output(reply({"images": images, "has_nsfw_concepts": [False, True]}), ID)
    assert short.has_nsfw_concepts == (False, True, False)
    long = read_output(reply({"images": images, "has_nsfw_concepts": [False] * 3 + [True]}), ID)
    assert len(long.has_nsfw_concepts) == 3


@pytest.mark.parametrize("body", [
    *NOT_OBJECTS, {}, {"images": []}, {"images": None}, {"images": {}}, {"images": "data:,"},
    {"images": [None]}, {"images": ["data:,"]}, {"images": [{}]}, {"images": [{"url": None}]},
    {"images": [{"url": "data:,"}, {"url": 5}]},
])  # fmt: skip
def test_a_result_without_images_is_said_with_the_request_id(body: object) -> None:
    with pytest.raises(RemoteError, match="holds no images") as failure:
        read_output(reply(body), ID)
    assert failure.value.request_id == ID and failure.value.may_be_billed


def test_a_status_that_cannot_be_read_is_not_quoted() -> None:
    reply = Reply(200, {}, b'{"you sent": "Key id:secret"}')
    with pytest.raises(RemoteError) as failure:
        read_status(reply, "an-id")
    assert "secret" not in str(failure.value)
