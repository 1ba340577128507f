// The visitor's own row: eight pictures to like or dislike. Each click is feedback through the same
// topic as anybody's; once it is acknowledged the service is asked what it would show now, and that
// becomes the row when all eight are judged or the visitor asks for more.
//
// Hooks that tests and styles rely on: #you-row has data-state (ready, waiting) and data-round (rises
// with every fresh set); each .tile has data-picture-id, data-rating (none, like, dislike) and
// data-source (catalogue, generated); its buttons have data-action (like, dislike).

import { ApiError, get, post } from "/assets/api.js";
import { el, icon, imageOf, milliseconds } from "/assets/dom.js";

const size = 8;
const quiet = 150; // milliseconds without a click before the service is asked
const retry = 1500;
const likedKept = 24;
const store = { user: "rebeca.user", liked: "rebeca.liked", rated: "rebeca.rated" };
const keys = { l: "like", L: "like", ArrowUp: "like", d: "dislike", D: "dislike", ArrowDown: "dislike" };

export class You {
  constructor(root) {
    this.user = localStorage.getItem(store.user) ?? this.newUser();
    this.rated = Number(localStorage.getItem(store.rated) ?? 0);
    this.liked = JSON.parse(localStorage.getItem(store.liked) ?? "[]");
    this.round = 0;
    this.tiles = [];
    this.last = null; // place of the last acknowledged feedback
    this.open = 0; // feedback not yet acknowledged
    this.ahead = null; // { set, after }: what the service would show now
    this.set = 0; // serial number of the set that is asked for, to drop late answers
    this.build(root);
  }

  newUser() {
    const user = `you-${crypto.getRandomValues(new Uint32Array(2)).reduce((s, n) => s + n.toString(36).padStart(7, "0"), "")}`;
    localStorage.setItem(store.user, user);
    return user;
  }

  build(root) {
    this.says = el("p", { class: "says", role: "status", "aria-live": "polite" }, "Choosing eight pictures…");
    this.row = el("div", { class: "tiles", role: "group", id: "you-row", "data-state": "waiting", "data-round": "0", "aria-label": "Eight pictures for you" });
    this.more = el("button", { class: "primary", id: "you-more", onclick: () => this.fresh() }, "More");
    this.preview = el("ol", { class: "strip", id: "you-preview" }, ...Array.from({ length: size }, () => el("li")));
    this.strip = el("ol", { class: "strip", id: "you-liked" });
    this.page = el("a", { class: "quiet-link", href: `#/u/${this.user}` }, "your timeline");
    root.append(
      el("div", { class: "section-head" }, el("h2", { id: "you-title" }, "You"),
        el("p", {}, "Like what you want more of, dislike the rest. The row learns from every click.")),
      el("div", { class: "you-body" },
        el("div", {}, this.row,
          el("div", { class: "under" }, this.says,
            el("p", { class: "hint" }, kbd("←"), kbd("→"), " move ", kbd("L"), " like ", kbd("D"), " dislike ", kbd("M"), " more"), this.more)),
        el("div", { class: "strips" },
          el("div", {}, el("h3", {}, "It would show you now"), this.preview),
          el("div", {}, el("h3", {}, "You liked"), this.strip),
          el("p", { class: "own" }, this.page, el("button", { class: "quiet-link", onclick: () => this.forgetMe() }, "start over")))));
    for (let i = 0; i < size; i++) this.tiles.push(this.tile(i));
    this.row.append(...this.tiles.map((t) => t.node));
    this.row.addEventListener("keydown", (e) => this.key(e));
    this.row.addEventListener("focusin", (e) => this.rove(e));
    this.showLiked();
    this.rove({ target: this.tiles[0].node });
  }

  tile(i) {
    const button = (action, words) => el("button", {
      type: "button", "data-action": action, "aria-pressed": "false", "aria-label": `${words} picture ${i + 1}`,
      onclick: () => this.rate(i, action),
    }, icon(action));
    const image = el("img", { alt: `Picture ${i + 1}`, width: 64, height: 64, draggable: "false" });
    const node = el("div", { class: "tile", role: "group", "data-rating": "none", "data-index": i, "aria-label": `Picture ${i + 1} of ${size}` },
      el("div", { class: "frame" }, image), el("div", { class: "choice" }, button("like", "Like"), button("dislike", "Dislike")));
    return { node, image, id: null, rating: "none", sending: Promise.resolve() };
  }

  // rove keeps one tile, the one last used, in the tab order, with its two buttons.
  rove({ target }) {
    const current = target.closest(".tile");
    for (const { node } of this.tiles) {
      node.tabIndex = node === current ? 0 : -1;
      for (const b of node.querySelectorAll("button")) b.tabIndex = node.tabIndex;
    }
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const tile = event.target.closest(".tile");
    const i = Number(tile?.dataset.index);
    if (keys[event.key]) this.rateByKey(i, keys[event.key]);
    else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      this.tiles[(i + (event.key === "ArrowRight" ? 1 : size - 1)) % size].node.focus();
    } else if (event.key === "m" || event.key === "M") this.fresh();
    else return;
    event.preventDefault();
  }

  // rateByKey moves on to the next picture without a judgement, so that eight keys judge eight pictures.
  rateByKey(i, action) {
    this.rate(i, action);
    for (let k = 1; k < size && this.tiles[i].rating !== "none"; k++) {
      const next = this.tiles[(i + k) % size];
      if (next.rating === "none") return next.node.focus();
    }
  }

  /** start shows the first set: catalogue pictures to a newcomer, generated ones to somebody known. */
  async start() {
    if (this.rated > 0 && (await this.forgotten())) {
      Object.assign(this, { rated: 0, liked: [] }); // a demo begins anew each time: so does its visitor
      this.showLiked();
    }
    return this.fresh();
  }

  async forgotten() {
    try {
      await get(`/v1/users/${encodeURIComponent(this.user)}`);
    } catch (error) {
      return error.code === "unknown_user";
    }
    return false;
  }

  get waiting() {
    return this.row.dataset.state === "waiting";
  }

  rate(i, action) {
    const tile = this.tiles[i];
    if (this.waiting || tile.id === null) return;
    const before = tile.rating;
    const now = before === action ? "none" : action; // the same again takes it back
    this.mark(tile, now);
    tile.sending = tile.sending.then(() => this.send(tile, tile.id, before, now));
    if (this.tiles.every((t) => t.rating !== "none")) this.fresh(true);
  }

  mark(tile, rating) {
    tile.rating = rating;
    tile.node.dataset.rating = rating;
    for (const b of tile.node.querySelectorAll("button")) b.setAttribute("aria-pressed", String(b.dataset.action === rating));
    const words = { none: "", like: ", liked", dislike: ", disliked" }[rating];
    tile.node.setAttribute("aria-label", `Picture ${Number(tile.node.dataset.index) + 1} of ${size}${words}`);
  }

  // send produces the events of one change of mind: an undo of what was said, then what is said now.
  async send(tile, id, before, now) {
    const records = [];
    if (before !== "none") records.push({ user_id: this.user, item_id: id, kind: "undo" });
    if (now !== "none") records.push({ user_id: this.user, item_id: id, kind: now });
    this.open++;
    try {
      const { results } = await post("/v1/feedback", { records });
      for (const r of results) {
        if (r.status !== "accepted") throw new ApiError(r.reason, r.message, 202);
        if (this.last === null || r.offset > this.last.offset) this.last = { partition: r.partition, offset: r.offset };
      }
      this.rated += records.length;
      localStorage.setItem(store.rated, this.rated);
      if (now === "like") this.keep(id, tile.image.src);
      else this.drop(id);
    } catch (error) {
      if (tile.id === id) this.mark(tile, before);
      this.say(`That did not arrive (${error.message}). Try again.`);
      return;
    } finally {
      this.open--;
    }
    this.sayProgress();
    this.predict();
  }

  // predict asks, after a moment of quiet, what the service would show now.
  predict() {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      const after = this.last;
      if (this.waiting || this.asking || this.open > 0) return;
      this.asking = true;
      try {
        const set = await this.generate(after);
        if (!this.waiting) this.showAhead({ set, after });
      } catch (error) {
        if (error.code !== "no_prior") this.say(`No preview: ${error.message}`);
      } finally {
        this.asking = false;
        if (this.last !== after && !this.waiting) this.predict();
      }
    }, quiet);
  }

  /**
   * fresh replaces the row by eight new pictures that know of every click so far; complete says that
   * it was called because all are judged, and stays where one of those clicks did not arrive.
   */
  async fresh(complete = false) {
    const set = ++this.set;
    const start = performance.now();
    this.wait(true);
    await Promise.all(this.tiles.map((t) => t.sending));
    if (complete && this.tiles.some((t) => t.rating === "none")) return this.wait(false);
    while (set === this.set) {
      try {
        const pictures = await this.next();
        if (set === this.set) this.show(pictures, performance.now() - start);
        return;
      } catch (error) {
        this.say(error.code === "no_prior" ? "Nothing has been learned yet: the first version is on its way…" : `Waiting: ${error.message}`);
        await new Promise((resolve) => setTimeout(resolve, retry));
      }
    }
  }

  wait(waiting) {
    this.row.dataset.state = waiting ? "waiting" : "ready";
    this.more.disabled = waiting;
    clearTimeout(this.timer);
  }

  async next() {
    const ahead = this.ahead;
    if (ahead !== null && ahead.after === this.last) return ahead.set;
    if (this.rated > 0) {
      try {
        return await this.generate(this.last);
      } catch (error) {
        if (error.code !== "no_prior") throw error;
      }
    }
    return this.explore();
  }

  async generate(after) {
    const body = after === null ? { count: size } : { count: size, after };
    const { items } = await post(`/v1/users/${encodeURIComponent(this.user)}/generate`, body);
    return items.map((record) => ({ id: record.id, image: imageOf(record), record }));
  }

  // explore shows catalogue pictures; a service without any has only what the model makes for everybody.
  async explore() {
    try {
      const { pictures } = await get(`/v1/demo/pictures?n=${size}`);
      return pictures;
    } catch (error) {
      if (error.status !== 404) throw error;
      return this.generate(null);
    }
  }

  show(pictures, took) {
    this.tiles.forEach((tile, i) => {
      const p = pictures[i];
      tile.id = p?.id ?? null;
      tile.node.dataset.pictureId = tile.id ?? "";
      tile.node.dataset.source = p?.record ? "generated" : "catalogue";
      if (p) tile.image.src = p.image;
      else tile.image.removeAttribute("src");
      this.mark(tile, "none");
    });
    this.ahead = null;
    for (const li of this.preview.children) li.replaceChildren();
    this.row.dataset.round = String(++this.round);
    this.wait(false);
    if (this.row.contains(document.activeElement)) this.tiles[0].node.focus();
    const record = pictures[0]?.record;
    if (!record) this.say("Eight from the catalogue to begin with: nothing is known of you yet.");
    else this.say(`Made for you after ${record.events_folded} ${record.events_folded === 1 ? "click" : "clicks"}, by prior ${short(record.prior_version)}, in ${milliseconds(took)}.`);
  }

  showAhead(ahead) {
    this.ahead = ahead;
    ahead.set.forEach((p, i) => this.preview.children[i].replaceChildren(el("img", { src: p.image, alt: "", width: 64, height: 64 })));
    this.sayProgress();
  }

  sayProgress() {
    if (this.waiting) return;
    const left = this.tiles.filter((t) => t.rating === "none").length;
    if (left > 0 && left < size) this.say(`${size - left} of ${size} judged. ${left} more, or press More for a fresh row now.`);
  }

  say(text) {
    if (this.says.textContent !== text) this.says.textContent = text;
  }

  keep(id, image) {
    this.liked = [{ id, image }, ...this.liked.filter((p) => p.id !== id)].slice(0, likedKept);
    this.showLiked();
  }

  drop(id) {
    this.liked = this.liked.filter((p) => p.id !== id);
    this.showLiked();
  }

  showLiked() {
    try {
      localStorage.setItem(store.liked, JSON.stringify(this.liked));
    } catch {
      // storage is full: the strip lives as long as the page
    }
    const places = this.liked.map((p) => el("li", {}, el("img", { src: p.image, alt: "", width: 64, height: 64 })));
    this.strip.replaceChildren(...(places.length ? places : [el("li")]));
  }

  forgetMe() {
    for (const key of [store.user, store.liked, store.rated]) localStorage.removeItem(key);
    Object.assign(this, { user: this.newUser(), rated: 0, liked: [], last: null, ahead: null });
    this.page.href = `#/u/${this.user}`;
    this.showLiked();
    this.fresh();
  }
}

const kbd = (key) => el("kbd", {}, key);

// short leaves the number of a version: 3-9c1f… is v3.
const short = (version) => version.replace(/^v?(\d+)\b.*$/, "v$1");
