/* The audio clock, the transcript, bookmarks, keys. Everything that is shown follows audio.currentTime. */
const $ = (id) => document.getElementById(id);
const audio = $("audio"), root = document.documentElement;
const lanes = new Lanes($("lanes")), overview = new Overview($("overview"));
const turns = [...document.querySelectorAll(".turn")].map((node) => ({ node, start: +node.dataset.s, end: +node.dataset.e }));
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let cursor = -1, scrolled = 0, shown = { at: 0, word: -1, lit: -1, turn: -2, tenth: -1 };

/* sound: embedded as FLAC, or a file beside the page */
const sound = $("sound").textContent;
if (sound) audio.src = URL.createObjectURL(new Blob([unpack(sound)], { type: "audio/flac" }));
audio.addEventListener("error", () => { $("notice").textContent = "The sound could not be read. It lies beside this page as conversation.wav."; });

const play = () => audio.play().catch(() => { /* a pause came first, or the error is told above */ });
function seek(seconds, go = false) {
  audio.currentTime = $("seek").value = clamp(seconds, 0, Math.max(0, data.seconds - 0.01));
  scrolled = 0;
  if (go) play();
  paint(true);
}
const toggle = () => (audio.paused ? play() : audio.pause());

function paint(force = false) {
  const now = shown.at = audio.currentTime;
  lanes.draw(now);
  overview.draw(now, lanes);
  const word = indexAt(words, now), lit = word >= 0 && now < words[word].end ? word : -1;
  if (force || word !== shown.word || lit !== shown.lit) {
    for (let index = Math.min(word, shown.word) + 1; index <= Math.max(word, shown.word); index++) words[index].node.classList.toggle("heard", index <= word);
    words[shown.lit]?.node.classList.remove("lit");
    words[lit]?.node.classList.add("lit");
    shown.word = word;
    shown.lit = lit;
  }
  const turn = indexAt(turns, now);
  if (force || turn !== shown.turn) {
    turns[shown.turn]?.node.classList.remove("now");
    turns[turn]?.node.classList.add("now");
    if (turn >= 0 && !audio.paused && performance.now() - scrolled > 4000) follow(turns[turn].node);
    shown.turn = turn;
  }
  const tenth = Math.floor(now * 10);
  if (force || tenth !== shown.tenth) {
    const who = ["user", "moshi"].filter((side) => data.units[side].some(([a, b]) => a <= now && now < b));
    const says = who.length === 2 ? "both speak" : who.length ? { user: "you speak", moshi: "Moshi speaks" }[who[0]] : "silence";
    $("clock").innerHTML = `<b>${clock(now)}.${tenth % 10}</b> / ${clock(data.seconds)}`;
    if (document.activeElement !== $("seek") || !audio.paused) $("seek").value = now;
    $("seek").setAttribute("aria-valuetext", `${clock(now)} of ${clock(data.seconds)}, ${says}`);
    shown.tenth = tenth;
  }
}
function follow(node) {
  const box = node.getBoundingClientRect();
  if (box.top < 0 || box.bottom > innerHeight) {
    const stage = document.querySelector(".stage").getBoundingClientRect();
    if (stage.bottom < innerHeight * 0.3) node.scrollIntoView({ block: "center", behavior: calm.matches ? "auto" : "smooth" });
  }
}
function run() {
  paint();
  if (!audio.paused) requestAnimationFrame(run);
}
for (const name of ["wheel", "touchmove"]) addEventListener(name, () => { scrolled = performance.now(); }, { passive: true });
audio.addEventListener("play", () => { document.body.classList.add("playing"); $("play").setAttribute("aria-label", "Pause"); run(); });
audio.addEventListener("pause", () => { document.body.classList.remove("playing"); $("play").setAttribute("aria-label", "Play"); paint(); });
for (const name of ["seeked", "loadedmetadata"]) audio.addEventListener(name, () => paint(true));

/* the transcript: click a word, or come with Tab and walk with the arrow keys */
$("transcript").addEventListener("click", (event) => {
  const word = event.target.closest(".w"), turn = event.target.closest(".turn");
  if (String(getSelection())) return;
  if (word) seek(+word.dataset.s, true);
  else if (turn && event.target.closest("button")) seek(+turn.dataset.s, true);
});
function walk(step) {
  if (!words.length) return;
  words[cursor]?.node.classList.remove("cursor");
  cursor = clamp(cursor < 0 ? Math.max(0, indexAt(words, audio.currentTime)) : cursor + step, 0, words.length - 1);
  words[cursor].node.classList.add("cursor");
  words[cursor].node.scrollIntoView({ block: "nearest" });
}
let pointed = false; // a click on a word focuses the transcript too, and is no wish to walk over it
$("transcript").addEventListener("pointerdown", () => { pointed = true; });
$("transcript").addEventListener("keydown", (event) => {
  if (pointed || event.target !== $("transcript")) return;
  const step = { ArrowRight: 1, ArrowDown: 8, ArrowLeft: -1, ArrowUp: -8 }[event.key];
  if (step && !event.shiftKey) walk(step);
  else if (event.key === "Enter" && cursor >= 0) seek(words[cursor].start, true);
  else return;
  event.preventDefault();
  event.stopPropagation();
});
$("transcript").addEventListener("blur", () => { pointed = false; words[cursor]?.node.classList.remove("cursor"); cursor = -1; });

/* bookmarks: those of the recording, and the reader's own, kept in this browser */
const own = (() => { try { return JSON.parse(localStorage.getItem(data.id)) || []; } catch { return []; } })();
function keep() {
  try { localStorage.setItem(data.id, JSON.stringify(own)); } catch { /* a page from a file may not be allowed to */ }
  showMarks();
}
function showMarks() {
  window.bookmarks = [...data.marks, ...own].sort((a, b) => a.at - b.at);
  $("marks").replaceChildren(...window.bookmarks.map((mark) => {
    const item = document.createElement("li"), go = document.createElement("button"), time = document.createElement("time");
    time.textContent = clock(mark.at);
    go.append(time, mark.label);
    go.addEventListener("click", () => seek(mark.at, true));
    item.append(go);
    if (own.includes(mark)) {
      const remove = document.createElement("button");
      remove.textContent = "×";
      remove.setAttribute("aria-label", `Remove the bookmark at ${clock(mark.at)}`);
      remove.addEventListener("click", () => { own.splice(own.indexOf(mark), 1); keep(); });
      item.append(remove);
    }
    return item;
  }));
  paint(true);
}
function bookmark() {
  const at = audio.currentTime, word = words[indexAt(words, at)];
  own.push({ at, label: word && at - word.end < 2 ? `“${word.text}”` : "here" });
  $("notice").textContent = `Bookmark at ${clock(at)}; its address is #t=${at.toFixed(1)}`;
  history.replaceState(null, "", `#t=${at.toFixed(1)}`);
  keep();
}

/* buttons, keys, pointer */
const jump = (list, way) => {
  const now = audio.currentTime, found = way > 0 ? list.find((at) => at > now + 0.05) : list.findLast((at) => at < now - 0.8);
  if (found !== undefined) seek(found); else if (way < 0) seek(0);
};
const starts = turns.map((item) => item.start), overlapStarts = data.overlaps.map(([start]) => Math.max(0, start - 1));
const speeds = [...$("speed").options].map((option) => +option.value);
function speed(step) {
  $("speed").selectedIndex = clamp($("speed").selectedIndex + step, 0, speeds.length - 1);
  audio.playbackRate = +$("speed").value;
}
function zoom(factor) { lanes.zoom = clamp(lanes.zoom * factor, 0.15, 12); paint(); }
function theme(name) { root.dataset.theme = name; resize(); }
const help = $("help");
const actions = {
  " ": toggle, k: toggle, ArrowLeft: () => seek(audio.currentTime - 2), ArrowRight: () => seek(audio.currentTime + 2),
  p: () => jump(starts, -1), n: () => jump(starts, 1), o: () => jump(overlapStarts, 1), b: bookmark, Home: () => seek(0), End: () => seek(data.seconds),
  "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1 / 0.7), "<": () => speed(-1), ">": () => speed(1),
  t: () => theme(root.dataset.theme === "dark" ? "light" : "dark"), "?": () => help.showModal(),
};
const slides = { ArrowUp: 2, ArrowDown: -2, PageUp: 10, PageDown: -10 }; // seconds; its own step is 0.01
addEventListener("keydown", (event) => {
  const inside = event.target.closest("button, select, a, dialog"), slider = event.target === $("seek");
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (slider && slides[event.key]) {
    seek(audio.currentTime + slides[event.key]);
    event.preventDefault();
    return;
  }
  if (inside && [" ", "Enter", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
  if (slider && !(" kpnobt?<>+-=".includes(event.key) || ["ArrowLeft", "ArrowRight"].includes(event.key))) return;
  if (event.shiftKey && event.key.startsWith("Arrow")) {
    const at = indexAt(words, audio.currentTime + 0.001), to = words[at + (event.key === "ArrowRight" ? 1 : -1)];
    if (to) seek(to.start);
  } else {
    const action = actions[event.key] || actions[event.key.toLowerCase()];
    if (!action) return;
    action();
  }
  event.preventDefault();
});
$("play").addEventListener("click", toggle);
$("back").addEventListener("click", actions.p);
$("next").addEventListener("click", actions.n);
$("mark").addEventListener("click", bookmark);
$("keys").addEventListener("click", actions["?"]);
$("theme").addEventListener("click", actions.t);
$("speed").addEventListener("change", () => speed(0));
$("seek").max = data.seconds;
$("seek").addEventListener("input", () => seek(+$("seek").value));
$("lanes").addEventListener("click", (event) => seek(lanes.time(event.offsetX)));

function resize() { lanes.resize(); overview.resize(); paint(true); }
const dark = matchMedia("(prefers-color-scheme: dark)");
const system = () => theme(dark.matches ? "dark" : "light");
dark.addEventListener("change", system);
addEventListener("resize", resize);
system();
showMarks();
const linked = /^#t=([\d.]+)$/.exec(location.hash);
if (linked) audio.addEventListener("loadedmetadata", () => seek(+linked[1]), { once: true });
