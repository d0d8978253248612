"""Plain requests to the fake fal server, for its own tests."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

import requests
from fakes.fal_server import ENDPOINT, FalServer
from PIL import Image

KEY = {"Authorization": "Key id:secret"}


def data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def arguments(size: tuple[int, int] = (64, 48), **more: Any) -> dict[str, Any]:
    """A grey picture whose square from (8, 8) to (24, 24) is masked."""
    mask = Image.new("L", size)
    mask.paste(255, (8, 8, 24, 24))
    urls = {"image_url": data_uri(Image.new("RGB", size, (90, 90, 90))), "mask_url": data_uri(mask)}
    return {**urls, "prompt": "a dog", "output_format": "png", "seed": 5, **more}


def submit(fal: FalServer, **more: Any) -> dict[str, Any]:
    body = arguments(**more)
    answer = requests.post(f"{fal.url}/{ENDPOINT}", json=body, headers=KEY, timeout=5)
    assert answer.status_code == 200
    told: dict[str, Any] = answer.json()
    return told


def follow(told: dict[str, Any]) -> tuple[list[dict[str, Any]], requests.Response]:
    """All status answers and the result."""
    seen = []
    while True:
        answer = requests.get(told["status_url"] + "/?logs=1", headers=KEY, timeout=5)
        seen.append(answer.json())
        assert answer.status_code == (200 if seen[-1]["status"] == "COMPLETED" else 202)
        if answer.status_code == 200:
            return seen, requests.get(told["response_url"], headers=KEY, timeout=5)
        time.sleep(0.01)


def picture(result: requests.Response, number: int = 0) -> Image.Image:
    url = result.json()["images"][number]["url"]
    return Image.open(io.BytesIO(requests.get(url, timeout=5).content))
