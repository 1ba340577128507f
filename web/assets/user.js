// The page of one user: what they did and what was made for them, in the order of the log, and for
// each image where it comes from.

import { get } from "/assets/api.js";
import { because, clock, count, el, icon, imageOf, percent } from "/assets/dom.js";
import { verdict } from "/assets/people.js";

const positive = new Set(["strong_positive", "weak_positive"]);

const provenance = [
  ["id", (r) => r.id],
  ["made for", (r) => r.user_id],
  ["because of", (r) => (r.trigger === "request" ? `request ${r.request_id ?? ""}` : "feedback")],
  ["source", (r) => `${r.source.topic}, partition ${r.source.partition}, offset ${count(r.source.offset)}`],
  ["as of", (r) => (r.as_of.offset < 0 ? "before any feedback" : `feedback ${r.as_of.partition}/${count(r.as_of.offset)}`)],
  ["events folded", (r) => count(r.events_folded)],
  ["prior", (r) => r.prior_version],
  ["seed", (r) => String(r.seed)],
  ["guidance", (r) => String(r.guidance)],
  ["steps", (r) => String(r.steps)],
  ["chosen from", (r) => (r.candidates ? `${count(r.candidates)} candidates` : null)],
  ["score", (r) => (r.score === undefined ? null : r.score.toFixed(3))],
  ["image", (r) => (r.image ? `${r.image.width} × ${r.image.height}, ${r.image.media_type}` : "embedding only")],
  ["created", (r) => new Date(r.created_at).toLocaleString()],
];

/** UserPage fills root with one user and keeps up with the stream. */
export class UserPage {
  constructor(root, user) {
    this.root = root;
    this.user = user;
    this.events = new Map(); // by offset
    this.images = new Map(); // by id
    this.pictures = {};
    this.chosen = null;
    this.counts = el("p", { class: "counts" }, "…");
    this.caption = el("p", { class: "caption" });
    this.timeline = el("ol", { class: "timeline", "aria-label": "Timeline, the newest first" });
    this.facts = el("aside", { class: "facts", "aria-live": "polite", "aria-label": "Where the image comes from" },
      el("p", { class: "empty" }, "Choose an image to see where it comes from."));
    root.replaceChildren(
      el("p", {}, el("a", { class: "quiet-link", href: "#/" }, "← everybody")),
      el("div", { class: "section-head" }, el("h2", {}, user), this.caption, this.counts),
      el("div", { class: "two" },
        el("div", {}, el("p", { class: "step heads", "aria-hidden": "true" }, el("span", {}, "when"), el("span", {}, "did"), el("span", {}, "got")), this.timeline),
        this.facts));
    this.load();
  }

  async load() {
    try {
      const page = await get(`/v1/gallery/users/${encodeURIComponent(this.user)}`);
      this.pictures = page.pictures;
      this.caption.textContent = page.caption ? `truly likes ${page.caption}` : "";
      for (const e of [...(page.user?.older_likes ?? []), ...(page.user?.last_events ?? [])]) this.events.set(e.offset, e);
      for (const g of page.generated) this.images.set(g.record.id, g);
      this.counted = page.user;
    } catch (error) {
      this.counts.textContent = error.code === "unknown_user" ? "Nothing is known of this user yet." : error.message;
      return;
    }
    this.draw();
  }

  feedback(event) {
    if (event.user_id !== this.user) return;
    if (event.image) this.pictures[event.item_id] = event.image;
    this.events.set(event.offset, event);
    if (this.counted) {
      this.counted.events++;
      if (positive.has(event.class)) this.counted.positives++;
      else if (event.class !== "none") this.counted.negatives++;
    }
    this.draw();
  }

  generated(event) {
    if (event.user_id !== this.user) return;
    this.images.set(event.record.id, event);
    this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.drawNow();
    });
  }

  drawNow() {
    const u = this.counted;
    if (u) {
      this.counts.textContent = `${count(u.events)} events, ${count(u.positives)} liked, ${count(u.negatives)} not` +
        ` · partition ${u.partition}` + (u.prior_version ? ` · embedding by prior ${u.prior_version}, length ${u.vector_norm?.toFixed(2) ?? "–"}` : "");
    } else if (this.images.size > 0) this.counts.textContent = "No feedback yet; pictures were asked for.";
    const focused = document.activeElement?.closest?.("[data-picture-id]")?.dataset.pictureId;
    this.timeline.replaceChildren(...this.steps().map((s) => this.step(s)));
    if (focused) this.timeline.querySelector(`[data-picture-id="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  // steps pair what was done with what was made of it, newest first, in the order of the user's
  // partition: an image stands beside the last events it knows of.
  steps() {
    const all = [
      ...Array.from(this.events.values(), (e) => ({ offset: e.offset, at: e.occurred_at, e })),
      ...Array.from(this.images.values(), (g) => ({ offset: g.record.as_of.offset, at: g.record.created_at, g })),
    ];
    all.sort((a, b) => b.offset - a.offset || (b.g ? 1 : 0) - (a.g ? 1 : 0) || Date.parse(b.at) - Date.parse(a.at));
    const steps = [];
    for (const one of all) {
      const last = steps.at(-1);
      if (one.g && (!last || last.events.length > 0)) steps.push({ events: [], images: [one.g], at: one.at });
      else if (one.g) last.images.push(one.g);
      else if (last) last.events.push(one.e);
      else steps.push({ events: [one.e], images: [], at: one.at });
    }
    return steps;
  }

  step({ events, images, at }) {
    const knows = images.length > 0 ? `, knowing ${count(images[0].record.events_folded)} events` : "";
    return el("li", { class: "step" },
      el("time", { datetime: at }, clock(at)),
      el("ul", { class: "events", "aria-label": "did" }, ...events.map((e) => el("li", {}, this.event(e)))),
      el("ul", { class: "images", "aria-label": `got${knows}` }, ...images.map((g) => el("li", {}, ...[this.image(g), because(this.causes(g))].filter(Boolean)))));
  }

  event(e) {
    const made = this.images.get(e.item_id);
    const source = this.pictures[e.item_id] ?? (made ? imageOf(made.record) : null);
    const good = positive.has(e.class);
    const words = `${e.kind}, item ${e.item_id}, ${clock(e.occurred_at)}`;
    return el("figure", { class: "did", title: words },
      source ? el("img", { src: source, alt: words, width: 64, height: 64 }) : el("span", { class: "unseen", role: "img", "aria-label": words }, e.kind),
      el("figcaption", { class: good ? "good" : "bad" }, e.class === "none" ? null : icon(good ? "like" : "dislike"), e.kind));
  }

  image(g) {
    const choose = () => this.choose(g);
    return el("button", {
      class: "got", type: "button", "data-picture-id": g.record.id, "aria-pressed": String(this.chosen === g.record.id),
      "aria-label": `Image made ${clock(g.record.created_at)} by prior ${g.record.prior_version}: where it comes from`, onclick: choose, onfocus: choose,
    }, el("img", { src: imageOf(g.record), alt: "", width: 64, height: 64 }), verdict(g.likes));
  }

  // causes are the pictures of what an image is owed to; somebody may have liked an image that was made.
  causes(g) {
    return (g.record.because ?? []).map((c) => {
      const made = this.images.get(c.item_id);
      const image = g.because?.find((p) => p.id === c.item_id)?.image ?? this.pictures[c.item_id] ?? (made ? imageOf(made.record) : null);
      return { id: c.item_id, image, share: c.share, liked: positive.has(this.events.get(c.offset)?.class) };
    }).filter((c) => c.image);
  }

  owed(g) {
    const causes = this.causes(g);
    if (causes.length === 0) return null;
    return el("figure", { class: "owed", id: "because" }, el("figcaption", {}, causes.every((c) => c.liked) ? "because you liked" : "because of"),
      el("ul", {}, ...causes.map((c) => el("li", {}, el("img", { src: c.image, alt: `item ${c.id}`, width: 64, height: 64 }), el("span", {}, percent(c.share))))));
  }

  choose(g) {
    if (this.chosen === g.record.id) return;
    this.chosen = g.record.id;
    for (const b of this.timeline.querySelectorAll("button.got")) b.setAttribute("aria-pressed", String(b.dataset.pictureId === this.chosen));
    const rows = provenance.map(([name, of]) => [name, of(g.record)]).filter(([, text]) => text !== null);
    this.facts.replaceChildren(
      el("img", { class: "large", src: imageOf(g.record), alt: "The chosen image", width: 64, height: 64 }), ...[this.owed(g)].filter(Boolean),
      el("dl", { id: "provenance" }, ...rows.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)])));
  }
}
