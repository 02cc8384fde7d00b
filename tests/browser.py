"""Drives a real JupyterLab in a real Chromium, so that a widget test is a few lines:

    with series_page(tmp_path, "01") as page:
        page.run_all()
        before = page.alt()
        page.set_slider("height", 3)
        page.wait_for_alt(lambda alt: alt != before and "36 px" in alt)

Leaving the block asserts that the browser's console and the notebook are free of errors.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pslib import paths
from pslib.doctor import browser_path
from pslib.notebooks import chosen, prepared

__all__ = ["NotebookPage", "needs_browser", "notebook_page", "series_page"]

ARGUMENTS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
SECONDS = 40.0
# Running cells earlier than this makes JupyterLab ask for a kernel in a dialog.
KERNEL_IS_IDLE = """() => {
    const context = window.jupyterapp?.shell?.currentWidget?.sessionContext;
    return context?.isReady && context.session?.kernel?.status === "idle";
}"""

# Every output stays in the page, and nothing is fetched from outside.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
}


def needs_browser(test):
    """Mark a test that drives a browser; without one it is skipped with one line (and fails under CI=true)."""
    found = browser_path() is not None
    skip = pytest.mark.skipif(not found, reason="no Chrome or Chromium found: install one or set PSLIB_BROWSER")
    return pytest.mark.browser(skip(test))


class NotebookPage:
    """One notebook open in JupyterLab; ``page`` is Playwright's own page."""

    def __init__(self, page, name: str):
        self.page, self.name = page, name
        self.complaints: list[str] = []
        page.set_default_timeout(1000 * SECONDS)
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self._note("error", str(error)))

    def run_all(self, seconds: float = 180.0) -> None:
        """Run every cell and wait until the last one is done."""
        # Not awaited in the page: a dialog would hold the promise, and this test with it, for ever.
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        last = self.page.locator(".jp-CodeCell .jp-InputPrompt").last
        deadline = time.monotonic() + seconds
        while not re.search(r"\[\d+\]", last.inner_text()):
            assert time.monotonic() < deadline, f"{self.name} did not finish within {seconds:.0f} s"
            self.page.wait_for_timeout(200)

    def run_code(self, code: str) -> None:
        """Run code in the notebook's kernel, as a cell of its own that leaves no trace in the page."""
        status = self.page.evaluate("""async (code) => {
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            return (await kernel.requestExecute({ code, store_history: false }).done).content.status;
        }""", code)
        assert status == "ok", f"{self.name}: this code ended in {status}: {code}"

    @contextlib.contextmanager
    def fault(self, owner: str, name: str):
        """Within the block ``owner.name`` raises RuntimeError("planted") in the kernel; ``owner`` is a dotted path.

            with page.fault("pslib.viz.browser_widget.QueryBrowser", "_ask"):
        """
        setup = (f"import pkgutil\n_owner = pkgutil.resolve_name({owner!r})\n_kept = getattr(_owner, {name!r})\n"
                 "def _fails(*arguments, **options):\n    raise RuntimeError('planted')\n"
                 f"setattr(_owner, {name!r}, _fails)")
        self.run_code(setup)
        try:
            yield
        finally:
            self.run_code(f"setattr(_owner, {name!r}, _kept)")

    def alts(self) -> list[str]:
        """The alt texts of all figures in outputs, top to bottom."""
        return self.page.eval_on_selector_all(".jp-OutputArea img.pslib", "images => images.map(image => image.alt)")

    def alt(self, index: int = 0) -> str:
        """The alt text of one figure."""
        return self.alts()[index]

    def wait_for_alt(self, accept, index: int = 0, seconds: float = 20.0) -> str:
        """Wait until ``accept(alt)`` is true for that figure and return its alt text; AssertionError otherwise."""
        deadline = time.monotonic() + seconds
        alts: list[str] = []
        while time.monotonic() < deadline:
            alts = self.alts()
            if index < len(alts) and accept(alts[index]):
                return alts[index]
            self.page.wait_for_timeout(100)
        raise AssertionError(f"no such alt text within {seconds:.0f} s; the figures say {alts}")

    def _widget(self, description: str, kind: str):
        """The control with exactly this ``description=``."""
        label = re.compile(rf"^\s*{re.escape(description)}\s*$")
        return self.page.locator(f".{kind}").filter(
            has=self.page.locator(".widget-label", has_text=label)).first

    def choose(self, description: str, option: str) -> None:
        """Choose an option of a Dropdown by its text."""
        self._widget(description, "widget-dropdown").locator("select").select_option(label=option)

    def set_slider(self, description: str, value) -> None:
        """Type a value into the number field of a slider, as a keyboard user does."""
        readout = self._widget(description, "widget-slider").locator(".widget-readout")
        readout.click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(str(value))
        self.page.keyboard.press("Enter")

    def toggle(self, description: str) -> None:
        """Click a Checkbox."""
        self._widget_checkbox(description).click()

    def _widget_checkbox(self, description: str):
        return self.page.locator(".widget-checkbox").filter(has_text=description).locator("input").first

    def press(self, text: str) -> None:
        """Click a widget Button."""
        self.page.locator(".widget-button", has_text=text).first.click()

    # ---- pictures by name: figures in a widget with the class pslib-<name> ----

    def picture(self, name: str) -> tuple[str, str]:
        """(alt text, picture as a data URI) of the figure in the widget of class ``pslib-<name>``; empty if none."""
        found = self.page.eval_on_selector_all(
            f".pslib-{name} img.pslib, img.pslib-{name}", "images => images.map(image => [image.alt, image.src])")
        return tuple(found[0]) if found else ("", "")

    def wait_for_picture(self, name: str, accept, seconds: float = SECONDS) -> tuple[str, str]:
        """Wait until ``accept(alt)`` is true for that figure; (alt text, picture), AssertionError otherwise."""
        deadline = time.monotonic() + seconds
        while True:
            alt, source = self.picture(name)
            if alt and accept(alt):
                return alt, source
            assert time.monotonic() < deadline, f"{name}: no such alt text within {seconds:.0f} s; it says {alt!r}"
            self.page.wait_for_timeout(100)

    def wait_for_note(self, part: str, seconds: float = SECONDS) -> str:
        """Wait until the widget says a sentence (role alert) that holds ``part``, and return it."""
        note = self.page.locator("[role=alert]", has_text=part).first
        note.wait_for(timeout=1000 * seconds)
        return note.inner_text()

    # ---- a ScenePicker: people are counted in the order of its boxes ----

    def click_person(self, index: int) -> None:
        """Click the middle of a person's box in the scene."""
        box = self.page.locator(".pslib-scene rect:is(.annotated, .detected)").nth(index).bounding_box()
        self.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def click_scene(self, x: float, y: float) -> None:
        """Click a place of the scene, given as fractions of its width and height."""
        self.page.mouse.click(*self._in_scene(x, y))

    def drag_box(self, corner: tuple[float, float], opposite: tuple[float, float]) -> None:
        """Draw a box with the mouse; corners as fractions of the scene's width and height."""
        self.page.mouse.move(*self._in_scene(*corner))
        self.page.mouse.down()
        self.page.mouse.move(*self._in_scene(*opposite), steps=4)
        self.page.mouse.up()

    def _in_scene(self, x: float, y: float) -> tuple[float, float]:
        scene = self.page.locator(".pslib-scene").first
        scene.scroll_into_view_if_needed()
        box = scene.bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def key(self, *names: str) -> None:
        """Press keys in the scene, as a keyboard user does."""
        self.page.locator(".pslib-scene").first.focus()
        for name in names:
            self.page.keyboard.press(name)

    def open_tab(self, title: str) -> None:
        """Open a page of a Tab widget by its title."""
        self.page.locator(".widget-tab .lm-TabBar-tabLabel", has_text=title).first.click()

    def type_text(self, description: str, text: str) -> None:
        """Fill a Text field, press Enter and leave it."""
        field = self._widget(description, "widget-text").locator("input")
        for _ in range(3):  # a view that is drawn anew, or a focus that is taken away, loses what was typed
            field.fill(text)
            field.press("Enter")
            if field.input_value() == text:
                break
        field.blur()

    def assert_clean(self) -> None:
        """No console error, no stderr output, no error output."""
        assert self.complaints == [], f"{self.name}: the browser's console says {self.complaints}"
        shown = self.page.locator("[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts()
        assert shown == [], f"{self.name}: {shown}"

    def _note(self, kind: str, text: str) -> None:
        if kind == "error" and not any(harmless in text for harmless in HARMLESS):
            self.complaints.append(text)


# What JupyterLab itself logs as an error on a machine without network or saved state, each seen and judged.
HARMLESS: tuple[str, ...] = ()


@contextlib.contextmanager
def series_page(folder: Path, number: str, environment: dict[str, str] | None = None):
    """Open a copy, without outputs, of the series' notebook of that number (``"01"``); ``folder`` is a tmp_path."""
    import nbformat

    (path,) = chosen([number])
    nbformat.write(prepared(path), folder / path.name)
    with notebook_page(folder, path.name, environment) as page:
        yield page


@contextlib.contextmanager
def notebook_page(folder: Path, name: str, environment: dict[str, str] | None = None):
    """Open ``folder/name`` in JupyterLab with private directories; asserts a clean console at the end."""
    from playwright.sync_api import sync_playwright

    with _lab(folder, environment or {}) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=ARGUMENTS)
        try:
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            opened = NotebookPage(page, name)
            page.goto(f"{address}/lab/tree/{name}?token=pslib")
            page.wait_for_selector(".jp-Notebook .jp-CodeCell")
            page.wait_for_function(KERNEL_IS_IDLE)
            yield opened
            opened.assert_clean()
        finally:
            browser.close()


@contextlib.contextmanager
def _lab(folder: Path, environment: dict[str, str]):
    """A JupyterLab server on a free port whose settings, data and run files lie in ``folder/.private``."""
    private = folder / ".private"
    for key, values in SETTINGS.items():
        path = private / "settings" / "@jupyterlab" / f"{key}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        **os.environ, "JUPYTER_CONFIG_DIR": f"{private}/config", "JUPYTER_DATA_DIR": f"{private}/data",
        "JUPYTER_RUNTIME_DIR": f"{private}/runtime", "IPYTHONDIR": f"{private}/ipython",
        "JUPYTERLAB_SETTINGS_DIR": f"{private}/settings", "JUPYTERLAB_WORKSPACES_DIR": f"{private}/workspaces",
        "PSLIB_ROOT": str(paths.root()), "PYTHONPATH": str(paths.root()), "PSLIB_CI": "1", **environment,
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
               "--ServerApp.port_retries=0", "--IdentityProvider.token=pslib", f"--ServerApp.root_dir={folder}",
               "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=", "--LabApp.extension_manager=readonly"]
    private.mkdir(parents=True, exist_ok=True)
    log = private / "lab.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=folder, env=variables, stdout=output, stderr=subprocess.STDOUT,
                                  stdin=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + SECONDS
        while not _answers(f"{address}/api/status?token=pslib"):
            assert server.poll() is None and time.monotonic() < deadline, f"JupyterLab did not start: {log.read_text()}"
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False
