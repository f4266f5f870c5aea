// Keeps the page up to date, and adds keys and dialogs. Without it every page and every form works as well.
"use strict";

const STREAM = "/v1/stream";
const SILENCE = 40000; // ms without any word, beats of the stream (15 s) included, until what is shown is called stale
const RETRY = 1000;
const MOST_REST = 3000; // ms
const MOST_ROWS = 150; // changed rows that are asked for one by one; beyond that, all of the part
const MOST_LINES = 5000;

const root = document.documentElement;
const collator = new Intl.Collator("en", { numeric: true });
const escaped = (text) => CSS.escape(text);

// --- parts of the page ------------------------------------------------------------------------------------------
// <section data-part="tasks" data-on="task host" data-rows> is asked for anew when a task or a host has changed; with
// data-rows only for the rows (data-key="task/ID") that have, where the change says which.

// What takes the server long (data-slow) is asked for apart, so that the rest does not wait for it.

class Lane {
  constructor(slow) {
    this.slow = slow;
    this.waiting = new Map(); // part -> Set of keys, or null for all of it
    this.asking = false;
  }

  want(part, key) {
    const name = part.dataset.part;
    if (this.waiting.get(name) === null) return;
    if (key === null || !("rows" in part.dataset)) this.waiting.set(name, null);
    else this.waiting.set(name, (this.waiting.get(name) || new Set()).add(key));
    if (!this.asking) this.ask();
  }

  async ask() {
    this.asking = true;
    // What comes at the same moment is asked for together.
    await pause(8);
    while (this.waiting.size) {
      const kept = new Map(this.waiting);
      this.waiting.clear();
      const begun = Date.now();
      try {
        await refresh(kept);
        // Many changes in a row must not keep the server at work for this page alone.
        if (this.slow) await pause(Math.min(2 * (Date.now() - begun), MOST_REST));
      } catch (problem) {
        for (const [name, keys] of kept) if (this.waiting.get(name) !== null) this.waiting.set(name, keys === null ? null : keys.union(this.waiting.get(name) || new Set()));
        stale(heard, "trying again");
        await pause(RETRY);
      }
    }
    this.asking = false;
    if (stream && stream.readyState === EventSource.OPEN && root.dataset.store !== "away") alive();
  }
}

const lanes = { fast: new Lane(false), slow: new Lane(true) };
const lane = (part) => ("slow" in part.dataset ? lanes.slow : lanes.fast);
const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));
const parts = () => document.querySelectorAll("[data-part]");

function changed({ kind, name, service, host }) {
  const about = [`${kind}/${name}`, `service/${service}`, `host/${host}`];
  for (const part of parts()) {
    if (!part.dataset.on.split(" ").includes(kind)) continue;
    if (part.dataset.about && !concerns(part.dataset.about.split(" "), kind, name, about)) continue;
    lane(part).want(part, name ? `${kind}/${name}` : null);
  }
}

// Whether a part about `wanted` may show what changed. Of hosts any may matter where none is named.
function concerns(wanted, kind, name, about) {
  if (kind === "event" || (kind === "host" && !wanted.some((one) => one.startsWith("host/")))) return true;
  return wanted.some((one) => about.includes(one)) || document.getElementById(`${kind}-${name}`) !== null;
}

function all() {
  for (const part of parts()) if (part.dataset.on) lane(part).want(part, null);
}

// Asks for parts anew: `kept` says for each which rows of it, null for all.
async function refresh(kept) {
  const rows = new Set();
  for (const keys of kept.values()) if (keys) for (const key of keys) rows.add(key);
  const whole = [...kept].filter(([, keys]) => keys === null || rows.size > MOST_ROWS).map(([name]) => name);
  const some = [...kept.keys()].filter((name) => !whole.includes(name));
  if (whole.length) for (const part of await get(whole, [])) morph(found(part), part);
  if (!some.length) return;
  const heads = new Set();
  for (const key of rows) {
    const row = document.getElementById(idOf(key));
    const box = row && row.closest("[data-box]");
    if (box) heads.add(box.dataset.key); // a task may leave it
  }
  for (const part of await get(some, rows, heads)) patch(found(part), part, rows);
}

const idOf = (key) => key.replace("/", "-");
const found = (part) => document.querySelector(`[data-part="${escaped(part.dataset.part)}"]`);

async function get(names, rows, heads = []) {
  const address = new URL(location.href);
  address.hash = "";
  for (const name of names) address.searchParams.append("_part", name);
  for (const row of rows) address.searchParams.append("_only", row);
  for (const head of heads) address.searchParams.append("_head", head);
  const answer = await fetch(address, { headers: { accept: "text/html" } });
  if (answer.redirected) location.reload(); // to log in
  if (!answer.ok) throw Object.assign(new Error(answer.statusText), { status: answer.status });
  const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
  const gone = parsed.querySelector("[data-gone]");
  if (gone) leave(gone.textContent);
  return [...parsed.querySelectorAll("[data-part]")].filter((part) => found(part));
}

// What the page is about is not there any more: it stays as it was last, and says so.
function leave(text) {
  if (document.getElementById("gone")) return;
  for (const part of document.querySelectorAll("[data-part]")) part.dataset.on = "";
  const note = document.createElement("p");
  note.id = "gone";
  note.className = "note bad";
  note.setAttribute("role", "alert");
  note.textContent = `${text}: this is how it was last`;
  document.getElementById("main").prepend(note);
}

// Puts the rows with these keys in, out, or in place; the rest of the part stays.
function patch(old, fresh, keys) {
  for (const head of fresh.querySelectorAll("[data-head]")) {
    const there = document.getElementById(head.id);
    if (there) morph(there, head.cloneNode(true)); // of what it is in, the whole may be wanted below
  }
  for (const box of fresh.querySelectorAll("[data-box]")) {
    const there = document.getElementById(box.id);
    if (there) for (const { name, value } of box.attributes) if (there.getAttribute(name) !== value) there.setAttribute(name, value);
  }
  for (const key of keys) {
    const whole = fresh.querySelector(`[data-box][data-key="${escaped(key)}"]`);
    const oldBox = old.querySelector(`[data-box][data-key="${escaped(key)}"]`);
    if (whole || oldBox) {
      if (whole && oldBox) morph(oldBox, whole);
      else if (oldBox) oldBox.remove();
      else changedWhole(old.dataset.part);
      continue;
    }
    const row = fresh.querySelector(`#${escaped(idOf(key))}`);
    const there = document.getElementById(idOf(key));
    const box = row && row.parentElement;
    if (there && old.contains(there) && (!row || there.parentElement.id !== box.id)) there.remove();
    else if (there && row) {
      morph(there, row);
      continue;
    }
    if (!row) continue;
    const into = document.getElementById(box.id);
    if (!into) {
      changedWhole(old.dataset.part);
      continue;
    }
    const after = [...into.children].find((one) => collator.compare(one.id, row.id) > 0);
    into.insertBefore(row, after || null);
    flash(row);
  }
}

function changedWhole(name) {
  const part = document.querySelector(`[data-part="${escaped(name)}"]`);
  lane(part).want(part, null);
}

function flash(row) {
  row.classList.remove("changed");
  requestAnimationFrame(() => row.classList.add("changed"));
}

// Makes `old` what `fresh` is with as few changes as that takes: focus, scrolling and what was opened stay.
function morph(old, fresh) {
  if (!old || old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName) return void old.replaceWith(fresh);
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if ("keep" in old.dataset) return;
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const known = new Map();
  for (const child of old.children) if (child.id) known.set(child.id, child);
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const same = child.id ? known.get(child.id) : at && !at.id && at.nodeName === child.nodeName ? at : null;
    if (!same) {
      old.insertBefore(child, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else old.insertBefore(same, at);
    morph(same, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
  if (old.matches("tr[data-key]")) flash(old);
}

// --- the stream -------------------------------------------------------------------------------------------------
// It goes on where the page was made, and after a break where it broke: the browser hands on the last position.

let stream = null;
let heard = 0;
let position = root.dataset.position;

function connect() {
  if (stream) stream.close();
  stream = new EventSource(position ? `${STREAM}?since=${encodeURIComponent(position)}` : STREAM);
  const on = (name, then) =>
    stream.addEventListener(name, (event) => {
      heard = Date.now();
      position = event.lastEventId || position;
      then(event.data ? JSON.parse(event.data) : {});
    });
  on("hello", (said) => (said.stale_since ? away(said) : alive()));
  on("changes", (said) => {
    alive();
    for (const one of said.changes) changed(one);
  });
  on("reset", all);
  on("stale", (said) => away(said));
  on("fresh", () => {
    delete root.dataset.store;
    alive();
    all();
  });
  on("beat", () => root.dataset.store !== "away" && alive());
  stream.onerror = () => {
    stale(heard, "trying again");
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, RETRY);
  };
}

function away(said) {
  root.dataset.store = "away";
  stale(said.stale_since * 1000, "the store gives no answer");
}

function alive() {
  if (root.dataset.live === "ok") return;
  root.dataset.live = "ok";
  say("live", "ok");
}

function stale(since, why) {
  if (root.dataset.live === "stale") return;
  root.dataset.live = "stale";
  say(`stale since ${new Date(since || Date.now()).toLocaleTimeString("en-GB")}: ${why}`, "stale");
}

function say(text, state) {
  const mark = document.getElementById("live");
  if (!mark) return;
  mark.dataset.state = state;
  mark.textContent = text;
}

// --- times ------------------------------------------------------------------------------------------------------

function long(seconds) {
  for (const [size, name] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (seconds >= size) return `${Math.floor(seconds / size)} ${name}`;
  return `${Math.floor(seconds)} s`;
}

function ago(time) {
  const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
  const text = seconds < -1 ? `in ${long(-seconds)}` : seconds < 0 ? "now" : `${long(seconds)} ago`;
  if (time.textContent !== text) time.textContent = text;
}

// --- dialogs: what leads to a form is shown on the page that it is asked from ----------------------------------------

async function dialog(address) {
  const url = new URL(address, location.href);
  url.searchParams.append("_part", "sheet");
  url.searchParams.set("back", location.pathname + location.search);
  let answer;
  try {
    answer = await fetch(url);
  } catch {
    location.href = address;
    return;
  }
  if (!answer.ok && answer.status < 400) return void (location.href = address);
  const part = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector('[data-part="sheet"]');
  if (!part) return void (location.href = address);
  const box = document.createElement("dialog");
  delete part.dataset.part;
  box.append(part);
  const title = box.querySelector("h1, h2");
  if (title) {
    title.id = "dialog-title";
    box.setAttribute("aria-labelledby", "dialog-title");
  }
  box.addEventListener("close", () => box.remove());
  box.addEventListener("click", (event) => {
    if (event.target === box || event.target.closest("[data-close]")) {
      event.preventDefault();
      box.close();
    }
  });
  document.body.append(box);
  box.showModal();
}

// The command follows what is typed into its form.
let typing = 0;
async function retell(form) {
  const turn = ++typing;
  await pause(120);
  if (turn !== typing) return;
  const url = new URL(form.dataset.command, location.href);
  for (const [name, value] of new FormData(form)) if (name !== "proof") url.searchParams.append(name, value);
  url.searchParams.append("_part", "command");
  const answer = await fetch(url);
  const part = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector('[data-part="command"]');
  const there = form.querySelector('[data-part="command"]');
  if (turn === typing && part && there) morph(there, part);
}

// --- logs: read as they come ---------------------------------------------------------------------------------------

async function follow(box) {
  for (let rest = 1000; box.isConnected; rest = Math.min(2 * rest, 30000)) {
    try {
      const answer = await fetch(box.dataset.follow);
      if (!answer.ok || !answer.body) throw new Error(answer.statusText);
      let begun = false;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        if (!begun) box.replaceChildren();
        begun = true;
        rest = 1000;
        const down = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
        box.append(value);
        while (box.childNodes.length > MOST_LINES) box.firstChild.remove();
        if (down) box.scrollTop = box.scrollHeight;
      }
    } catch {
      /* said below */
    }
    await pause(rest);
  }
}

// --- keys -------------------------------------------------------------------------------------------------------------

let going = 0;

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (Date.now() - going < 1500) {
    going = 0;
    const link = document.querySelector(`[data-go="${escaped(event.key)}"]`);
    if (link) {
      event.preventDefault();
      link.click();
    }
    return;
  }
  if (event.key === "/") {
    event.preventDefault();
    const search = document.querySelector("[data-search]");
    search.focus();
    search.select();
  } else if (event.key === "g") going = Date.now();
  else if (event.key === "?") dialog("/help");
  else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
}

// From row to row of tables and lists, by the first link of each.
function step(by) {
  const links = [...document.querySelectorAll("main tbody tr, main .attention li")].map((row) => row.querySelector("a")).filter(Boolean);
  if (!links.length) return;
  const row = document.activeElement && document.activeElement.closest("tr, li");
  const at = links.findIndex((link) => row && row.contains(link));
  links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + by))].focus();
}

// --- beginning ----------------------------------------------------------------------------------------------------------

document.addEventListener("keydown", key);
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-do], [data-help]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  dialog(link.href);
});
document.addEventListener("input", (event) => {
  const form = event.target.closest("form[data-command]");
  if (form) retell(form);
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  if (event.target.matches("[data-into]") && event.target.files.length)
    event.target.files[0].text().then((text) => (document.getElementById(event.target.dataset.into).value = text));
});
document.addEventListener("submit", (event) => {
  // Twice is once too often.
  if (event.target.method === "post") {
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "1";
  }
});
addEventListener("pageshow", (event) => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  if (event.persisted) all();
});
addEventListener("pagehide", () => stream && stream.close());
for (const box of document.querySelectorAll("[data-follow]")) follow(box);
const mark = document.getElementById("live");
if (mark && !document.querySelector('[data-part]:not([data-on=""])')) mark.hidden = true;
else if (mark) {
  connect();
  setInterval(() => {
    if (heard && Date.now() - heard > SILENCE && root.dataset.live !== "stale") {
      stale(heard, "trying again");
      connect();
    }
  }, 1000);
}
setInterval(() => document.querySelectorAll("time[datetime]").forEach(ago), 5000);
