"""A browser without a network: how a page looks once it is laid out.

Run as a script, this file is that browser: `browser.py PAGE PICTURE WIDTH [remote]`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

# What the page shows once it is laid out; read through the page's own engine.
PROBE = """
JSON.stringify({
  plots: [...document.querySelectorAll("svg.plot")].map(svg => {
    const inside = box => [box.width, box.height, box.left, box.right, box.top, box.bottom];
    return {box: inside(svg.getBoundingClientRect()),
            texts: [...svg.querySelectorAll("text")].map(t => inside(t.getBoundingClientRect())),
            points: [...svg.querySelectorAll(".points use, .curve path")].map(
              t => inside(t.getBoundingClientRect()))};
  }),
  rows: [...document.querySelectorAll("table")].map(t => [t.innerText, t.getBoundingClientRect().height]),
  keys: [...document.querySelectorAll("figcaption span")].map(
    s => [s.getBoundingClientRect().right, s.closest("figure").getBoundingClientRect().right]),
  overflow: document.documentElement.scrollWidth - window.innerWidth,
  height: document.documentElement.scrollHeight,
  strip: [...document.images].map(i => i.naturalWidth),
  verdict: getComputedStyle(document.querySelector("h1 .status")).color,
})
"""


FRAMES = "JSON.stringify([innerHeight, ltxrtFrames])"
COUNT_FRAMES = """
window.ltxrtFrames = 0;
(function next() { requestAnimationFrame(() => { window.ltxrtFrames += 1; next(); }); })();
"""


def browse(page, picture, width, *options):
    """What a browser of its own process finds on a page: PROBE's answer and the addresses it asked for.

    With "remote", a page from a file may ask for addresses elsewhere, which are seen and refused; it then
    gets no files either. Without, the browser does not even ask.
    """
    command = [sys.executable, __file__, str(page), str(picture), str(width), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"the browser did not run; install the dev extra\n{done.stderr}"
    return json.loads(done.stdout)


def browser(page, picture, width, remote):
    """Open a page with all addresses but files refused, write its picture, print what `browse` gives."""
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    flags = "--no-sandbox --disable-gpu --proxy-server=127.0.0.1:9"
    os.environ["QTWEBENGINE_CHROMIUM_FLAGS"] = flags
    from PySide6.QtCore import QTimer, QUrl
    from PySide6.QtWebEngineCore import QWebEngineSettings, QWebEngineUrlRequestInterceptor
    from PySide6.QtWebEngineWidgets import QWebEngineView
    from PySide6.QtWidgets import QApplication

    asked = []

    class Refuse(QWebEngineUrlRequestInterceptor):
        def interceptRequest(self, info):
            asked.append(info.requestUrl().toString(QUrl.ComponentFormattingOption.FullyEncoded))
            info.block(info.requestUrl().scheme() != "file")

    application = QApplication([])
    view, refuse = QWebEngineView(), Refuse()
    view.page().profile().setUrlRequestInterceptor(refuse)
    settings, option = view.settings(), QWebEngineSettings.WebAttribute
    settings.setAttribute(option.LocalContentCanAccessRemoteUrls, remote)
    settings.setAttribute(option.ShowScrollBars, False)  # they come and go with the window's height
    view.resize(width, 900)
    view.show()

    def measured(answer):
        view.resize(width, json.loads(answer)["height"])
        view.page().runJavaScript(COUNT_FRAMES)
        again()

    def again():
        QTimer.singleShot(20, lambda: view.page().runJavaScript(FRAMES, settled))

    def settled(answer):
        """Asked until it is so, however long that takes: laid out at the new height, and painted."""
        height, frames = json.loads(answer)
        if height != view.height() or frames < 3 or not (remote or painted(view.grab().toImage())):
            again()
        else:
            view.page().runJavaScript(PROBE, finish)

    def painted(image):
        """Drawn as far as the tests want it: after a resize, bands are painted one by one, white at first."""
        points = [(x, y) for y in range(0, image.height(), 3) for x in range(0, image.width(), 3)]
        return len({image.pixel(*point) for point in points}) > 50

    def finish(answer):
        view.grab().save(str(picture))
        print(json.dumps({**json.loads(answer), "asked": asked}))
        application.quit()

    view.loadFinished.connect(lambda _: view.page().runJavaScript(PROBE, measured))
    view.load(QUrl.fromLocalFile(str(page)))
    QTimer.singleShot(600_000, lambda: application.exit(3))  # no measure of speed: a run takes 3 s
    status = application.exec()
    sys.stdout.flush()
    os._exit(status)  # Qt's order of destruction at exit is not worth a crash


if __name__ == "__main__":
    browser(
        Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), int(sys.argv[3]), sys.argv[4:] == ["remote"]
    )
