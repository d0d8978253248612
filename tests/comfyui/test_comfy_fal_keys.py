"""Where the key and the servers come from in a real ComfyUI, and that the key goes nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from comfy_browser import READY, Browser
from comfy_scene import error_of, fill, fill_on_fal, put_scene, succeeded
from comfy_server import QUEUE_URL, ComfyUI, base_directory, running
from comfy_socket import Ear, listening
from fakes import fal_faults
from fakes.fal_server import FalServer
from playwright.sync_api import Page, Response, expect

pytestmark = pytest.mark.comfy

BOX_KEY = "ONEREWARD_FAL_TEST_BOX_KEY"
# What can be changed, or spent, from a page: with a body that each of them would take.
CHANGES: dict[str, dict[str, Any]] = {
    "key": {"key": "id:of-somebody-else"},
    "preferences": {"auto_order": ["fal", "local", "preview"]},
    "journal/collect": {"request_id": "764cabcf-b745-4b3e-ae38-1200304cf45b"},
    "journal/clear": {},
    "test": {"server": "fal"},
}


@pytest.fixture(scope="module")
def keyless_server(
    tmp_path_factory: pytest.TempPathFactory, fal_server: FalServer
) -> Iterator[ComfyUI]:
    folder = base_directory(tmp_path_factory.mktemp("keyless") / "base")
    put_scene(folder)
    variables = {QUEUE_URL: fal_server.url, BOX_KEY: fal_server.key}
    with running(folder, variables=variables) as server:
        yield server


@pytest.fixture
def keyless(keyless_server: ComfyUI) -> Iterator[ComfyUI]:
    """A ComfyUI without a key for fal, and without what an earlier test put into its folder."""
    yield keyless_server
    for name in ("fal_key", "servers.json", "preferences.json"):
        (pack_folder(keyless_server) / name).unlink(missing_ok=True)


def pack_folder(comfyui: ComfyUI) -> Path:
    folder = comfyui.folder / "user" / "__onereward"
    folder.mkdir(exist_ok=True)
    return folder


def fill_with_no_backend(seed: int) -> dict[str, Any]:
    return fill_on_fal(seed) | {"fill": fill(seed)}


def lines_of(comfyui: ComfyUI, prompt: dict[str, Any]) -> list[str]:
    """What the fill node showed while the prompt ran."""
    with listening(comfyui) as ear:
        end = ear.end_of(comfyui.queue(prompt, ear.client_id))
    assert end.name == "execution_success", end.data
    return ear.lines("fill")


def test_without_a_key_and_a_backend_the_preview_model_paints_and_says_so(
    keyless: ComfyUI, fal: FalServer
) -> None:
    lines = lines_of(keyless, fill_with_no_backend(seed=201))
    assert "it is not OneReward" in lines[0]
    assert fal.requests == []
    assert keyless.get("/onereward/status")["key"] == "none"


def test_with_a_key_and_no_backend_fal_paints_and_the_node_says_so(
    comfyui: ComfyUI, fal: FalServer
) -> None:
    put_scene(comfyui.folder)
    lines = lines_of(comfyui, fill_with_no_backend(seed=202))
    assert "using fal, because a key is set" in lines[0]
    assert fal.paid == 1
    status = comfyui.get("/onereward/status")
    assert status["backend"] == "fal" and status["key"] == "from FAL_KEY"


def test_fal_without_a_key_says_how_to_get_one(keyless: ComfyUI, fal: FalServer) -> None:
    said = error_of(keyless.run(fill_on_fal(seed=203)))
    assert "CredentialsError" in said
    assert "FAL_KEY" in said and str(pack_folder(keyless) / "fal_key") in said
    assert fal.requests == []


def test_a_key_file_that_is_its_owners_alone_works_at_once(
    keyless: ComfyUI, fal: FalServer
) -> None:
    write_key(keyless, fal.key + "\n", 0o600)
    lines = lines_of(keyless, fill_with_no_backend(seed=204))
    assert "using fal, because a key is set" in lines[0]
    assert fal.paid == 1


@pytest.mark.parametrize("prompt", [fill_on_fal(205), fill_with_no_backend(206)])
def test_a_key_file_that_others_can_read_is_refused_with_the_remedy(
    keyless: ComfyUI, fal: FalServer, prompt: dict[str, Any]
) -> None:
    file = write_key(keyless, fal.key, 0o644)
    said = error_of(keyless.run(prompt))
    assert "CredentialsError" in said
    assert f'chmod 600 "{file}"' in said
    assert fal.requests == []


def write_key(comfyui: ComfyUI, key: str, mode: int) -> Path:
    file = pack_folder(comfyui) / "fal_key"
    file.write_text(key)
    file.chmod(mode)
    return file


def offered_servers(comfyui: ComfyUI) -> list[str]:
    kind, *options = comfyui.get("/object_info/OneRewardFalBackend")["OneRewardFalBackend"][
        "input"
    ]["required"]["server"]
    names: list[str] = kind if isinstance(kind, list) else options[0]["options"]
    return names


def test_a_named_server_is_offered_and_runs_without_fals_key(
    keyless: ComfyUI, fal: FalServer
) -> None:
    assert offered_servers(keyless) == ["fal"]
    entries = {"the box": {"url": fal.url, "key_env": BOX_KEY}}
    (pack_folder(keyless) / "servers.json").write_text(json.dumps(entries))
    assert offered_servers(keyless) == ["fal", "the box"]
    run = succeeded(keyless, fill_on_fal(seed=207, server="the box"))
    assert "the box, 28 steps" in run.outputs["proof"]["text"][0]
    assert fal.paid == 1
    assert fal.url not in json.dumps(keyless.get(f"/history/{run.prompt_id}"))


def test_a_broken_server_list_is_reported_when_it_is_used_and_takes_no_node_away(
    keyless: ComfyUI, fal: FalServer
) -> None:
    file = pack_folder(keyless) / "servers.json"
    file.write_text('{"the box": ')
    assert offered_servers(keyless) == ["fal"]
    said = refusal_of(keyless, fill_on_fal(seed=208, server="the box"))
    assert f"{file} cannot be read" in said
    assert fal.requests == []


def test_a_server_that_is_not_in_the_list_is_refused_with_the_file_to_name_it_in(
    keyless: ComfyUI, fal: FalServer
) -> None:
    said = refusal_of(keyless, fill_on_fal(seed=209, server="a shared graph's box"))
    assert 'There is no server "a shared graph\'s box"' in said
    assert str(pack_folder(keyless) / "servers.json") in said


def refusal_of(comfyui: ComfyUI, prompt: dict[str, Any]) -> str:
    """What a user reads of a prompt that is refused when queued or fails when run."""
    reply = requests.post(comfyui.url + "/prompt", json={"prompt": prompt}, timeout=30)
    if not reply.ok:
        return " ".join(
            f"{error['message']} {error['details']}"
            for node in reply.json()["node_errors"].values()
            for error in node["errors"]
        )
    prompt_id = reply.json()["prompt_id"]
    comfyui.wait(lambda: bool(comfyui.get(f"/history/{prompt_id}")), 30)
    return error_of(comfyui.finished(prompt_id))


def test_the_key_is_in_no_log_message_file_or_answer(comfyui: ComfyUI, fal: FalServer) -> None:
    put_scene(comfyui.folder)
    with listening(comfyui) as ear:
        good = ended(comfyui, ear, fill_on_fal(seed=211))
        fal.fail("submit", fal_faults.unauthorized())
        refused = ended(comfyui, ear, fill_on_fal(seed=212))
        fal.down()
        unreachable = ended(comfyui, ear, fill_on_fal(seed=213))
        unreachable_status = comfyui.get("/onereward/status")
        fal.up()
    said = {run_id: error_of(comfyui.finished(run_id)) for run_id in (refused, unreachable)}
    assert "No user found for Key ID and Secret" in said[refused]
    assert "nothing answers there" in said[unreachable]
    saved = comfyui.finished(good).outputs["save"]["images"][0]
    assert "OneRewardFalBackend" in comfyui.metadata(saved)["prompt"]

    places = {
        "websocket": b"\n".join(ear.raw),
        "answers": json.dumps(
            [unreachable_status]
            + [comfyui.get(path) for path in ("/history", "/object_info", "/onereward/status")]
        ).encode(),
        **{str(path): path.read_bytes() for path in files_of(comfyui.folder)},
    }
    assert len(places["websocket"]) > 1000
    assert any(name.endswith("journal.sqlite3") for name in places)
    assert b"onereward" in places[str(comfyui.log)].lower()
    for half in fal.key.split(":"):
        assert [name for name, data in places.items() if half.encode() in data] == []


def ended(comfyui: ComfyUI, ear: Ear, prompt: dict[str, Any]) -> str:
    """Run a prompt in the ear's presence; its id."""
    prompt_id = comfyui.queue(prompt, ear.client_id)
    ear.end_of(prompt_id)
    comfyui.wait(lambda: bool(comfyui.get(f"/history/{prompt_id}")), 10)
    return prompt_id


def files_of(folder: Path) -> Iterator[Path]:
    """Every file under a base directory but the pack's own."""
    for path in folder.rglob("*"):
        if path.is_file() and "custom_nodes" not in path.parts:
            yield path


def post(comfyui: ComfyUI, path: str, body: Any, **headers: str) -> requests.Response:
    return requests.post(f"{comfyui.url}/onereward/{path}", json=body, headers=headers, timeout=30)


def test_a_key_that_is_posted_is_kept_for_its_owner_alone_used_at_once_and_removed(
    keyless: ComfyUI, fal: FalServer
) -> None:
    replies = [post(keyless, "key", {"key": f" {fal.key}\n"})]
    assert replies[0].json() == {"key": "from the key file"}
    file = pack_folder(keyless) / "fal_key"
    assert file.stat().st_mode & 0o777 == 0o600 and file.read_text() == fal.key + "\n"
    assert keyless.get("/onereward/status")["backend"] == "fal"
    replies.append(post(keyless, "test", {"server": "fal"}))
    assert replies[-1].json() == {"words": "fal knows the key. Price: $0.035 per megapixel."}
    replies.append(post(keyless, "key", {"key": "no key: " + fal.key}))
    assert replies[-1].status_code == 400 and "this form is no key" in replies[-1].json()["error"]
    replies.append(post(keyless, "key", {"key": fal.key, "more": 1}))
    replies.append(post(keyless, "key", {"key": [fal.key]}))
    replies.append(post(keyless, "key", fal.key))
    assert [reply.status_code for reply in replies[-3:]] == [400] * 3
    assert file.read_text() == fal.key + "\n"
    replies.append(requests.get(keyless.url + "/onereward/status", timeout=30))
    replies.append(post(keyless, "key", {"key": ""}))
    assert replies[-1].json() == {"key": "none"} and not file.exists()
    replies.append(post(keyless, "test", {"server": "fal"}))
    assert "There is no fal key" in replies[-1].json()["error"]
    assert fal.jobs == {}
    said = keyless.log.read_text() + "".join(str(r.headers) + r.text for r in replies)
    assert [half for half in fal.key.split(":") if half in said] == []


def test_no_key_is_posted_over_one_of_the_environment(comfyui: ComfyUI, fal: FalServer) -> None:
    for key in (fal.key, "", "id:other"):
        reply = post(comfyui, "key", {"key": key})
        assert reply.status_code == 400 and "FAL_KEY" in reply.json()["error"]
    assert not (pack_folder(comfyui) / "fal_key").exists()


@pytest.mark.parametrize("path", CHANGES)
def test_a_page_of_another_site_a_form_and_a_proxy_change_nothing(
    keyless: ComfyUI, fal: FalServer, path: str
) -> None:
    url, body = f"{keyless.url}/onereward/{path}", CHANGES[path]
    foreign = [{"Origin": "http://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}]
    assert [post(keyless, path, body, **headers).status_code for headers in foreign] == [403, 403]
    forms: list[dict[str, Any]] = [
        {"data": body}, {"files": {"key": "x"}},
        {"data": json.dumps(body), "headers": {"Content-Type": "text/plain"}},
    ]  # fmt: skip
    assert [requests.post(url, timeout=30, **form).status_code for form in forms] == [415] * 3
    if path != "test":  # it changes nothing, so other machines may ask
        for headers in ({"X-Forwarded-For": "10.0.0.7"}, {"Host": "elsewhere.example"}):
            reply = post(keyless, path, body, **headers)
            assert reply.status_code == 403
            assert "the machine that ComfyUI runs on" in reply.json()["error"]
    assert not (pack_folder(keyless) / "fal_key").exists()
    assert not (pack_folder(keyless) / "preferences.json").exists()
    assert fal.requests == []


@pytest.mark.parametrize("path", [path for path in CHANGES if path != "journal/clear"])
def test_a_body_with_other_fields_is_refused_in_words(keyless: ComfyUI, path: str) -> None:
    for body in ({"url": "http://elsewhere.example"}, {**CHANGES[path], "path": "/etc"}, []):
        reply = post(keyless, path, body)
        assert reply.status_code == 400 and set(reply.json()) == {"error"}


@pytest.mark.browser
def test_a_key_typed_into_the_form_leaves_the_page_and_never_comes_back(
    browser: Browser, keyless: ComfyUI, fal: FalServer
) -> None:
    bodies: list[str] = []
    with browser.tab(keyless) as tab:
        tab.page.on("response", lambda response: bodies.append(body_of(response)))
        key = open_key_form(tab.page)
        expect(key).to_contain_text("No key is set.")
        field = key.get_by_label("fal key", exact=True)
        field.press_sequentially(fal.key)
        field.press("Enter")
        expect(key).to_contain_text("A key is set, from the key file.")
        expect(field).to_have_value("")
        key.get_by_role("button", name="Test the key").click()
        expect(key).to_contain_text("fal knows the key.")
        tab.screenshot("settings, key")
        shown = everything_in(tab.page)
        tab.page.reload()
        key = open_key_form(tab.page)
        expect(key).to_contain_text("A key is set, from the key file.")
        shown += everything_in(tab.page)
        key.get_by_role("button", name="Remove the key file").click()
        expect(key).to_contain_text("No key is set.")
        assert tab.complaints == []
    assert not (pack_folder(keyless) / "fal_key").exists()
    assert any('"backend"' in body for body in bodies)
    places = {
        "page": shown, "answers": "".join(bodies), "log": keyless.log.read_text(),
        "settings": json.dumps(keyless.get("/settings")),
        **{str(path): path.read_text("latin-1") for path in files_of(keyless.folder)},
    }  # fmt: skip
    for half in fal.key.split(":"):
        assert [name for name, text in places.items() if half in text] == []


def open_key_form(page: Page) -> Any:
    page.wait_for_function(READY)
    page.keyboard.press("Control+Comma")
    page.get_by_role("dialog").get_by_text("OneReward", exact=True).click()
    return page.get_by_role("region", name="fal key", exact=True)


def everything_in(page: Page) -> str:
    """What any script of the page could read."""
    stores = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    fields = "[...document.querySelectorAll('input')].map(field => field.value).join()"
    return page.content() + str(page.evaluate(f"() => {stores} + {fields}"))


def body_of(response: Response) -> str:
    ours = "onereward" in response.url or "settings" in response.url
    return response.text() if ours and response.status == 200 else ""
