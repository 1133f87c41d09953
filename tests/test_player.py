"""The player page in headless Chromium: it plays, follows the audio clock, fits every screen, asks nothing of the
network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import Browser, browser
from needs import needs
from recording_kit import INFO, MockStepper, dialogue, record, tones

from moshi_mlx.frame import FRAME
from moshi_mlx.recording import player
from moshi_mlx.recording.finish import finish, understand
from moshi_mlx.recording.recorder import Recorder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = dialogue(tmp_path_factory.mktemp("talk") / "r")
    (folder / "events.jsonl").write_text(
        '{"frame":100,"kind":"mark","label":"</script><b>a mark</b>"}\n'
        '{"frame":9,"kind":"said","label":"What is full duplex?"}\n'
    )
    finish(folder)
    return folder / "player.html"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    needs("chromium", "chromium-driver")
    with browser(tmp_path_factory.mktemp("browser")) as window:
        yield window


@pytest.fixture
def shown(window: Browser, page: Path) -> Browser:
    window.look(1_440, 900, "light")
    window.open(page)
    window.wait("document.getElementById('audio').readyState >= 2")
    return window


def now(window: Browser) -> float:
    return float(window.run("return document.getElementById('audio').currentTime"))


WATCH = """
window.seen = [];  // [clock when painted, clock now, word, its start, its end] whenever a word begins to be lit
const note = (changes) => {
  for (const { target } of changes)
    if (target.classList.contains("lit"))
      seen.push([shown.at, audio.currentTime, target.textContent, +target.dataset.s, +target.dataset.e]);
};
new MutationObserver(note).observe(document.body, { subtree: true, attributeFilter: ["class"] });
"""


def test_it_plays_and_the_lit_word_follows_the_audio_clock(shown: Browser) -> None:
    """Guards against a page that shows words by a clock of its own, which runs away from the sound."""
    shown.run("seek(2.5)")
    shown.wait("!audio.seeking")
    shown.run(WATCH)
    shown.run("document.getElementById('play').click()")
    shown.wait("audio.currentTime > 5.5")
    seen = shown.run("return seen")
    assert all(start <= painted < end for painted, _, _, start, end in seen), seen
    assert all(painted == pytest.approx(clock, abs=0.3) for painted, clock, _, _, _ in seen), seen
    starts = [start for _, _, _, start, _ in seen]
    assert starts == sorted(starts)
    assert len(set(starts)) >= 4  # of twelve: a busy machine may paint seldom
    shown.run("document.getElementById('play').click()")
    assert shown.run("return audio.paused")
    assert shown.complaints() == []


def test_seeking_by_word(shown: Browser) -> None:
    """Guards against a click that lands beside the word, or a keyboard that cannot do what the mouse can."""
    shown.run("audio.play = () => { window.asked = true; return Promise.resolve(); }")  # the clock stands still
    start = shown.run("const word = document.querySelectorAll('.w')[5]; word.click(); return +word.dataset.s")
    assert shown.run("return asked")
    assert now(shown) == pytest.approx(start, abs=0.01)
    shown.run("asked = false; document.getElementById('transcript').focus(); seek(0)")
    for key in ("\ue014", "\ue014", "\ue007"):  # right, right, enter
        shown.key(key)
    second = shown.run("return +document.querySelectorAll('.w')[1].dataset.s")
    assert shown.run("return asked")
    assert now(shown) == pytest.approx(second, abs=0.01)


def test_arrow_keys_after_a_click_on_a_word(shown: Browser) -> None:
    """A click moves the focus into the transcript, and from then on the arrow keys moved an outline, not the time."""
    shown.run("audio.pause(); audio.play = () => Promise.resolve()")
    shown.click(".w")
    assert shown.run("return document.activeElement.id") == "transcript"
    shown.run("seek(3)")
    shown.key("\ue014")  # right
    assert now(shown) == pytest.approx(5, abs=0.05)


def test_keys_bookmarks_and_links(shown: Browser, page: Path) -> None:
    """Guards against dead keys, and a bookmark that is lost when the page is opened again."""
    shown.run("localStorage.clear(); document.activeElement.blur(); seek(3)")
    shown.key("\ue014")
    assert now(shown) == pytest.approx(5, abs=0.05)
    shown.key("n")
    assert now(shown) == pytest.approx(5.6, abs=0.05)
    shown.key("b")
    assert shown.run("return location.hash") == "#t=5.6"
    shown.key("t")
    assert shown.run("return document.documentElement.dataset.theme") == "dark"
    shown.key("?")
    assert shown.run("return document.getElementById('help').open")
    shown.open(page)
    assert shown.run("return document.querySelectorAll('#marks li').length") == 2
    shown.run("document.querySelector('#marks li:last-child button').click(); audio.pause()")
    assert now(shown) == pytest.approx(8, abs=0.3)  # the recording's own mark, frame 100
    shown.run("localStorage.clear()")
    assert shown.complaints() == []


def test_arrow_keys_after_a_click_on_the_overview(shown: Browser) -> None:
    """Guards against arrows that move 0.01 s: a click there leaves the focus on the slider, whose step that is."""
    shown.run("document.activeElement.blur(); seek(3); document.getElementById('seek').focus()")
    assert shown.run("return document.activeElement.id") == "seek"
    shown.key("\ue014")  # right
    assert now(shown) == pytest.approx(5, abs=0.005)
    assert shown.run("return +document.getElementById('seek').value") == pytest.approx(5, abs=0.01)
    shown.key("\ue012")  # left
    assert now(shown) == pytest.approx(3, abs=0.005)
    shown.key("\ue013")  # up
    assert now(shown) == pytest.approx(5, abs=0.005)
    shown.key("\ue00f")  # page down
    assert now(shown) == 0
    shown.run("seek(3)")
    shown.key("\ue014", shift=True)
    starts = shown.run("return [...document.querySelectorAll('.w')].map((word) => +word.dataset.s)")
    assert now(shown) == pytest.approx(min(start for start in starts if start > 3), abs=0.005)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 768, 1_440, 1_920])
def test_it_fits_every_screen(shown: Browser, width: int, theme: str) -> None:
    """Guards against anything wider than the screen, and targets too small for a thumb."""
    shown.look(width, 800, theme)
    shown.wait(f"innerWidth === {width} && document.documentElement.dataset.theme === '{theme}'")
    wide = "[...document.querySelectorAll('body *')].filter((n) => n.getBoundingClientRect().right > innerWidth + 1)"
    assert shown.run(f"return {wide}.map((n) => n.outerHTML)") == []
    assert shown.run("return document.documentElement.scrollWidth <= innerWidth")
    small = "[...document.querySelectorAll('.controls button')].filter((n) => n.getBoundingClientRect().height < 44)"
    assert shown.run(f"return {small}.length") == 0
    contrast = shown.run(CONTRAST)
    assert min(contrast.values()) >= 4.5, contrast


CONTRAST = """
const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = (css) => {
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 :
  ((v + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; }; const style =
  getComputedStyle(document.documentElement), value = (name) => light(style.getPropertyValue(name)); const ratio = (a,
  b) => (Math.max(value(a), value(b)) + 0.05) / (Math.min(value(a), value(b)) + 0.05); const pairs = [["--ink", "--bg"],
  ["--soft", "--bg"], ["--soft", "--card"], ["--user", "--bg"], ["--moshi", "--bg"], ["--both", "--bg"], ["--lit-ink",
  "--lit"]]; return Object.fromEntries(pairs.map(([a, b]) => [a + b, ratio(a, b)]));
"""


def test_a_screen_reader_finds_its_way(shown: Browser) -> None:
    """Guards against controls without a name, and a transcript that is only a picture."""
    shown.devtools("Accessibility.enable")
    tree = shown.post("/goog/cdp/execute", cmd="Accessibility.getFullAXTree", params={})["nodes"]
    nodes = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node.get("ignored") and "role" in node
    ]
    assert all(name for role, name in nodes if role in ("button", "slider", "combobox", "image", "region", "link"))
    roles = {role for role, _ in nodes}
    assert {"main", "banner", "contentinfo", "heading", "slider", "region"} <= roles
    assert ("heading", "What was said") in nodes
    assert ("button", "Play") in nodes
    text = shown.run("return document.getElementById('transcript').innerText")
    assert "Full duplex means that I listen" in text
    assert "What is full duplex?" in text
    shown.run("seek(6)")
    assert (
        shown.run("return document.getElementById('seek').getAttribute('aria-valuetext')") == "0:06 of 0:14, both speak"
    )


def test_the_page_is_self_contained(page: Path) -> None:
    """Guards against a font, a script or a picture that is fetched, and against text that escapes into markup."""
    text = page.read_text(encoding="utf-8")
    markup = re.sub(r"data:[^\"']*|http://www\.w3\.org/\S+", "", text)
    assert "http" not in markup.replace("http-equiv", "")
    assert not re.search(r"<(link|script|img|iframe)[^>]+(src|href)=\"(?!data:|\")", text)
    assert "default-src 'none'" in text
    assert "<b>a mark</b>" not in text
    assert "{{" not in text


def test_a_large_recording_plays_from_the_file_beside_it(
    tmp_path: Path, window: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a page of gigabytes, and a security policy that forbids the file beside it."""
    monkeypatch.setattr(player, "EMBED_BYTES", 1_000)
    folder = record(tmp_path / "r", 25, MockStepper({}, tones(2, [(0.5, 1)])), tones(2, [(1, 1.5)]))
    finish(folder)
    assert (folder / "player.html").stat().st_size < 60_000
    window.look(1_440, 900, "light")
    window.open(folder / "player.html")
    window.wait("audio.readyState >= 2")
    assert window.run("return audio.duration") == pytest.approx(25 * FRAME / 24_000, abs=0.01)
    assert window.complaints() == []


def test_words_of_a_sound_file_that_begins_with_silence(tmp_path: Path) -> None:
    """Guards against a page that lacks the user's words because speech begins 0.6 s into its file, as in every one that
    ships, or gives them to a turn before or after it.
    """
    spoken = tones(7.2, [(0.6, 1.6), (2.8, 3.4), (5.4, 6.2)])
    folder = record(tmp_path / "r", 90, MockStepper({}, tones(7.2, [])), spoken)
    starts = {0: "First.", 20: "Second.", 44: "Nobody hears this.", 60: "Last."}  # 0, 1.6, 3.52 and 4.8 s
    events = [json.dumps({"frame": frame, "kind": "said", "label": label}) for frame, label in starts.items()]
    (folder / "events.jsonl").write_text("\n".join(events) + "\n")
    found = understand(folder)
    said = [(item.start, item.said) for item in player.paragraphs(found.recording, found.turns, found.words)]
    assert said == [(pytest.approx(0.6), "First."), (pytest.approx(2.8), "Second."), (pytest.approx(5.4), "Last.")]


def test_an_empty_conversation_has_a_page(tmp_path: Path, window: Browser) -> None:
    """Guards against a page that fails where nobody said anything, or whose title is markup."""
    with Recorder(tmp_path / "r", replace(INFO, title="<script>alert(1)</script>{{DATA}}")) as recorder:
        stepper = MockStepper({}, tones(1, []))
        recorder.add(stepper.step(tones(1, [])[:FRAME]), tones(1, [])[:FRAME])
    finish(tmp_path / "r")
    window.open(tmp_path / "r" / "player.html")
    window.wait("audio.readyState >= 2")
    assert window.run("return document.querySelector('h1').textContent") == "<script>alert(1)</script>{{DATA}}"
    assert window.complaints() == []
