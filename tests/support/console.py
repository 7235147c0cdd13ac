"""The console page in a real Chromium, in front of the whole stack as processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.support.ports import free_port
from tests.support.processes import Running, service
from tests.support.waiting import until

SCRIPTED_TIMES = {"TIDEGATE_SCRIPTED_THINK_SECONDS": "0.1", "TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0.01"}


class Stack:
    """nats-server and the three services; the gateway can be ended and started again on its port, workers added."""

    def __init__(self, exits: AsyncExitStack) -> None:
        self.gateway: Running
        self.publisher_url = ""
        self._exits = exits
        self._gateway_port = free_port()
        self._gateway_env: dict[str, str] = {}
        self._worker_env: dict[str, str] = {}
        self.workers: list[Running] = []
        self.url = f"http://127.0.0.1:{self._gateway_port}"

    async def start(
        self, nats_url: str, env: Mapping[str, str] | None = None, shared: Mapping[str, str] | None = None
    ) -> None:
        """`env` is the worker's own, `shared` all services'."""
        common = {"TIDEGATE_NATS_URL": nats_url, "TIDEGATE_DRAIN_SECONDS": "2", **(shared or {})}
        port = free_port()
        self.publisher_url = f"http://127.0.0.1:{port}"
        self._gateway_env = {**common, "TIDEGATE_PUBLISHER_URL": self.publisher_url}
        publisher = {**common, "TIDEGATE_CORS_ORIGINS": self.url}
        self._worker_env = {**common, "TIDEGATE_AI_BACKEND": "scripted", **SCRIPTED_TIMES, **(env or {})}
        await self._exits.enter_async_context(service("publisher_api", port, publisher))
        await self.start_worker()
        await self.start_gateway()

    async def start_worker(self) -> Running:
        run = await self._exits.enter_async_context(service("ai_worker", free_port(), self._worker_env))
        self.workers.append(run)
        return run

    async def start_gateway(self) -> None:
        running = service("gateway", self._gateway_port, self._gateway_env)
        self.gateway = await self._exits.enter_async_context(running)

    async def publish(self, path: str, headers: Mapping[str, str] | None = None, **event: Any) -> None:
        async with httpx.AsyncClient(base_url=self.publisher_url, headers=headers) as client:
            answer = await client.post(path, json=event)
        assert answer.status_code == 202, answer.text


class Console:
    """What a person does on the page and sees there."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        self.url = url

    def open(self) -> None:
        self.browser.get(self.url)

    def forget(self) -> None:
        """The page remembers nothing of what was asked before."""
        self.open()
        self.script("localStorage.removeItem('tidegate.job')")

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Text of all that match, also of what is scrolled out of sight; read at one moment."""
        found = self.script("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)
        return "\n".join(found)

    def script(self, code: str, *arguments: Any) -> Any:
        return self.browser.execute_script(code, *arguments)

    def fill(self, selector: str, text: str) -> None:
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def color_scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def painted(self, selector: str) -> list[tuple[str, str, str]]:
        """Each text in sight of what matches, with its colour and what is behind it."""
        code = """const behind = (e) => {
              const color = getComputedStyle(e).backgroundColor;
              return color === "rgba(0, 0, 0, 0)" && e.parentElement ? behind(e.parentElement) : color;
            };
            return [...document.querySelectorAll(arguments[0])]
              .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
              .map((e) => [e.textContent, getComputedStyle(e).color, behind(e)])"""
        return [(text, color, ground) for text, color, ground in self.script(code, selector)]

    @property
    def state(self) -> str:
        return str(self.find("#state").get_attribute("data-state"))

    async def connect(self, client_id: str = "", user_id: str = "", topics: str = "") -> str:
        """Connects on a freshly loaded page and gives the client id."""
        self.open()
        self.fill("#client-id", client_id)
        self.fill("#user-id", user_id)
        self.fill("#topics", topics)
        self.find("#connect").click()
        await until(lambda: self.state == "open", "the page is connected")
        return str(self.find("#client-id").get_attribute("value"))

    def send(self, event_type: str, data: str, to: str = "self", name: str = "", *, as_text: bool = False) -> None:
        self.script("document.querySelector(`input[name=to][value=${arguments[0]}]`).click()", to)
        self.script(
            "document.querySelector(`input[name=as][value=${arguments[0]}]`).click()", "text" if as_text else "json"
        )
        if name:
            self.fill("#name", name)
        self.fill("#event-type", event_type)
        self.fill("#data", data)
        self.find("#send").click()

    async def logged(self, text: str, event_type: str) -> None:
        row = f'#log li[data-type="{event_type}"]'
        await until(lambda: text in self.text(row), f"the log shows {event_type} with {text!r}")

    def ask(self, prompt: str) -> None:
        self.find("#prompt").send_keys(prompt + Keys.ENTER)

    def answer(self) -> tuple[str, str, str]:
        """State, text and closing line of the newest answer."""
        code = """const answer = [...document.querySelectorAll(".answer")].at(-1);
            const text = (name) => answer?.querySelector(name).textContent ?? "";
            return [answer?.dataset.state ?? "", text(".answer-text"), text(".answer-state")]"""
        state, text, closing = self.script(code)
        return state, text, closing

    def complaints(self) -> list[str]:
        """What the browser logged, newest since the last call; failed requests too."""
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def requested(self) -> set[str]:
        """Host and port of every request since the last call."""
        hosts = set()
        for entry in self.browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                hosts.add(urlsplit(message["params"]["request"]["url"]).netloc)
        return hosts
