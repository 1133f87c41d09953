"use strict";
/* Draws the lanes and the overview. Knows the data and a time, nothing of the audio. */
const data = JSON.parse(document.getElementById("data").textContent);
const unpack = (text) => { // a loop: Uint8Array.from makes a list of all letters first, which takes seconds for ten minutes of sound
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let index = 0; index < raw.length; index++) bytes[index] = raw.charCodeAt(index);
  return bytes;
};
const peaks = { user: unpack(data.peaks.user), moshi: unpack(data.peaks.moshi) };
const words = [...document.querySelectorAll(".w")].map((node) => ({ node, text: node.textContent, start: +node.dataset.s, end: +node.dataset.e }));
const loudest = Math.max(24, ...["user", "moshi"].map((side) => peaks[side].reduce((a, b) => Math.max(a, b), 0)));
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const indexAt = (list, time) => { // the last one that has begun
  let low = 0, high = list.length;
  while (low < high) { const middle = (low + high) >> 1; if (list[middle].start <= time) low = middle + 1; else high = middle; }
  return low - 1;
};
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

class Lanes {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.zoom = 1;
    this.left = 0;
  }
  resize() {
    const box = this.canvas.getBoundingClientRect();
    const ratio = Math.min(window.devicePixelRatio || 1, 3);
    this.width = box.width;
    this.height = box.height;
    this.canvas.width = Math.round(box.width * ratio);
    this.canvas.height = Math.round(box.height * ratio);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(document.documentElement);
    this.color = Object.fromEntries(["user", "moshi", "both", "ink", "soft", "faint", "line", "card", "lit", "lit-ink"].map((name) => [name, style.getPropertyValue("--" + name).trim()]));
  }
  get span() { return clamp(Math.max(this.width / 105, 3.4) * this.zoom, 1, Math.max(data.seconds, 1)); }
  x(seconds) { return ((seconds - this.left) / this.span) * this.width; }
  time(x) { return clamp(this.left + (x / this.width) * this.span, 0, data.seconds); }
  draw(now) {
    const c = this.context, { width: w, height: h, color } = this;
    this.left = clamp(now - this.span * 0.38, 0, Math.max(0, data.seconds - this.span));
    const right = this.left + this.span;
    const top = 20, foot = 56, half = (h - top - foot) / 2, seen = (item) => item[1] > this.left && item[0] < right;
    const middle = { user: top + half * 0.5, moshi: top + half * 1.5 };
    c.clearRect(0, 0, w, h);
    c.font = "11px ui-sans-serif, system-ui, sans-serif";
    c.textBaseline = "alphabetic";
    c.textAlign = "left";
    for (let tick = Math.ceil(this.left); tick <= right; tick++) {
      const every = this.span > 60 ? 30 : this.span > 24 ? 10 : this.span > 14 ? 5 : 1;
      if (tick % every) continue;
      c.fillStyle = color.line;
      c.fillRect(this.x(tick), top - 4, 1, h - top - foot + 8);
      c.fillStyle = color.soft;
      c.fillText(clock(tick), this.x(tick) + 4, 11);
    }
    for (const item of data.overlaps.filter(seen)) this.shade(item, top - 4, h - foot + 4);
    for (const side of ["user", "moshi"]) {
      c.fillStyle = color.line;
      c.fillRect(0, middle[side] - 0.5, w, 1);
      this.wave(side, middle[side], half * 0.46, now);
    }
    c.fillStyle = color.ink;
    c.fillRect(this.x(now) - 1, top - 6, 2, h - top - foot + 12);
    c.beginPath();
    c.arc(this.x(now), top - 6, 4.5, 0, 7);
    c.fill();
    for (const item of data.responses) if (item.delay > 0 && seen([item.at - item.delay, item.at])) this.bracket(item, middle, half);
    for (const item of data.interruptions) if (seen([item.at, item.at + item.after])) this.cut(item, middle, half);
    this.words(now, right, h - 9);
  }
  shade([start, end], top, bottom) {
    const c = this.context, x = this.x(start), width = Math.max(2, this.x(end) - x);
    c.globalAlpha = 0.17;
    c.fillStyle = this.color.both;
    c.beginPath();
    c.roundRect(x, top, width, bottom - top, 5);
    c.fill();
    c.globalAlpha = 1;
  }
  wave(side, middle, most, now) {
    const c = this.context, lane = peaks[side], pitch = 4, first = Math.floor((this.left / this.span) * (this.width / pitch));
    for (let bar = first; ; bar++) { // bars stand at fixed times, so that they do not flicker while scrolling
      const from = (bar * pitch * this.span) / this.width, to = ((bar + 1) * pitch * this.span) / this.width, x = this.x(from);
      if (x > this.width) break;
      let peak = 0;
      for (let i = Math.floor(from / data.step); i <= Math.min(lane.length - 1, Math.floor(to / data.step)); i++) peak = Math.max(peak, lane[i]);
      const size = Math.max(1, Math.pow(peak / loudest, 0.7) * most);
      c.globalAlpha = to <= now ? 1 : 0.42;
      c.fillStyle = peak > 2 ? this.color[side] : this.color.faint;
      c.beginPath();
      c.roundRect(x, middle - size, pitch - 1.2, size * 2, 1.4);
      c.fill();
    }
    c.globalAlpha = 1;
  }
  bracket(item, middle, half) { // from the end of one's speech to the beginning of the other's
    const c = this.context, other = item.side === "user" ? "moshi" : "user";
    const from = this.x(item.at - item.delay), to = this.x(item.at), a = middle[other], b = middle[item.side], centre = (a + b) / 2;
    c.strokeStyle = this.color.soft;
    c.lineWidth = 1.5;
    c.setLineDash([4, 3]);
    c.beginPath();
    c.moveTo(from, a);
    c.bezierCurveTo(from, centre, to, centre, to, b);
    c.stroke();
    c.setLineDash([]);
    if (item.side === "moshi") this.pill(`${Math.round(item.delay * 1000)} ms`, (from + to) / 2, centre, this.color.card, this.color.ink, this.color.line);
  }
  cut(item, middle, half) {
    const text = item.yields === item.side ? "cuts in" : `cuts in · yields ${Math.round(item.after * 1000)} ms`;
    this.pill(text, this.x(item.at) + 4, middle[item.side] - half * 0.42, this.color.both, this.color.card, this.color.both, "left");
  }
  pill(text, x, y, back, front, edge, align = "center") {
    const c = this.context;
    c.font = "600 11px ui-sans-serif, system-ui, sans-serif";
    const width = c.measureText(text).width + 14, left = align === "center" ? x - width / 2 : x;
    c.fillStyle = back;
    c.strokeStyle = edge;
    c.lineWidth = 1;
    c.beginPath();
    c.roundRect(left, y - 9.5, width, 19, 9.5);
    c.fill();
    c.stroke();
    c.fillStyle = front;
    c.textAlign = "center";
    c.fillText(text, left + width / 2, y + 4);
    c.textAlign = "left";
  }
  words(now, right, y) {
    const c = this.context;
    c.font = "600 14px ui-sans-serif, system-ui, sans-serif";
    const free = [-1e9, -1e9]; // two rows, for speech is denser than writing
    for (let index = Math.max(0, indexAt(words, this.left) - 8); index < words.length; index++) {
      const word = words[index];
      if (word.start > right) break;
      const x = this.x(word.start), width = c.measureText(word.text).width;
      const row = free.findIndex((at) => at <= x), base = y - 22 + 22 * row;
      if (x + width < -40 || row < 0) continue;
      const lit = word.start <= now && now < word.end;
      if (lit) {
        c.fillStyle = this.color.lit;
        c.beginPath();
        c.roundRect(x - 5, base - 15, width + 10, 21, 6);
        c.fill();
      }
      c.fillStyle = lit ? this.color["lit-ink"] : now >= word.start ? this.color.ink : this.color.soft;
      c.fillText(word.text, x, base);
      free[row] = x + width + 7;
    }
  }
}

class Overview extends Lanes {
  get span() { return data.seconds; }
  resize() { // the lanes are drawn once; playing only uncovers them
    super.resize();
    this.left = 0;
    this.context.clearRect(0, 0, this.width, this.height);
    this.wave("user", this.height * 0.27, this.height * 0.23, Infinity);
    this.wave("moshi", this.height * 0.73, this.height * 0.23, Infinity);
    this.picture = document.createElement("canvas");
    this.picture.width = this.canvas.width;
    this.picture.height = this.canvas.height;
    this.picture.getContext("2d").drawImage(this.canvas, 0, 0);
  }
  draw(now, view) {
    const c = this.context, { width: w, height: h, color } = this;
    c.clearRect(0, 0, w, h);
    c.fillStyle = color.line;
    c.globalAlpha = 0.55;
    c.beginPath();
    c.roundRect(this.x(view.left), 0, Math.max(6, this.x(view.left + view.span) - this.x(view.left)), h, 7);
    c.fill();
    c.globalAlpha = 1;
    for (const item of data.overlaps) this.shade(item, 0, h);
    c.globalAlpha = 0.42;
    c.drawImage(this.picture, 0, 0, w, h);
    c.globalAlpha = 1;
    const part = now / data.seconds;
    if (part > 0) c.drawImage(this.picture, 0, 0, this.picture.width * part, this.picture.height, 0, 0, w * part, h);
    c.fillStyle = color.ink;
    c.fillRect(this.x(now) - 1, 0, 2, h);
    for (const mark of window.bookmarks || []) {
      c.beginPath();
      c.moveTo(this.x(mark.at) - 5, 0);
      c.lineTo(this.x(mark.at) + 5, 0);
      c.lineTo(this.x(mark.at), 8);
      c.fill();
    }
  }
}
