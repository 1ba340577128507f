// The people on the stage: what they truly like, what they liked, what they get. A card keeps its
// place, and a new picture takes the place of the oldest one, so that nothing moves that is not new.

import { because, el, icon, imageOf } from "/assets/dom.js";

const perRow = 5;

/** verdict is the tick or cross of the world's truth, null where nobody knows. */
export function verdict(likes) {
  if (likes === null || likes === undefined) return null;
  return el("span", { class: `verdict ${likes ? "yes" : "no"}`, role: "img", "aria-label": likes ? "truly liked" : "not their taste" },
    icon(likes ? "tick" : "cross"));
}

/** People is the grid of cards. */
export class People {
  constructor(root) {
    this.note = el("p", {}, "Twelve at a time.");
    this.grid = el("ul", { class: "cards" });
    this.empty = el("p", { class: "empty" }, "Nobody has been here yet: people appear with their first feedback.");
    this.places = [];
    root.append(
      el("div", { class: "section-head" }, el("h2", { id: "people-title" }, "People"),
        this.note),
      this.empty, this.grid);
  }

  cards(cards) {
    for (const card of cards) this.put(card);
    this.empty.hidden = this.places.length > 0;
    if (cards.some((c) => c.caption)) this.note.textContent = "Twelve at a time. Ticks and crosses are the truth about them, which the model never sees.";
  }

  put(card) {
    const old = this.places[card.slot];
    if (old?.user === card.user_id) {
      old.update(card);
      return;
    }
    if (old?.inUse()) {
      old.heir = card; // somebody reads or tabs through it: it leaves when they do
      return;
    }
    const place = new Card(card);
    if (old) old.node.replaceWith(place.node);
    else this.grid.append(place.node);
    this.places[card.slot] = place;
    for (const end of ["mouseleave", "focusout"]) {
      place.node.addEventListener(end, () => setTimeout(() => place.heir && !place.inUse() && this.put(place.heir)));
    }
  }

  feedback(event) {
    if (event.class !== "strong_positive" && event.class !== "weak_positive") return;
    if (event.image) this.of(event.user_id)?.liked.add(event.item_id, event.image, null);
  }

  generated(event) {
    this.of(event.user_id)?.got.add(event.record.id, imageOf(event.record), event.likes, event.because);
  }

  of(user) {
    return this.places.find((p) => p?.user === user);
  }
}

class Card {
  constructor(card) {
    this.user = card.user_id;
    this.liked = new Row("liked");
    this.got = new Row("gets");
    const href = `#/u/${encodeURIComponent(card.user_id)}`;
    this.node = el("li", { class: "card", "data-user-id": card.user_id },
      el("a", { class: "card-head", href, "aria-label": `${card.user_id}, ${card.caption || "no caption"}: open the timeline` },
        card.caption ? el("span", {}, "truly likes", el("b", {}, card.user_id)) : null, el("strong", {}, card.caption || card.user_id)),
      this.liked.node, this.got.node);
    this.update(card);
  }

  inUse() {
    return this.node.matches(":hover") || this.node.contains(document.activeElement);
  }

  update(card) {
    this.heir = null;
    for (const p of card.liked.slice(0, perRow).reverse()) this.liked.add(p.id, p.image, null);
    for (const g of card.got.slice(0, perRow).reverse()) this.got.add(g.record.id, imageOf(g.record), g.likes, g.because);
  }
}

// Row holds perRow places filled in turn.
class Row {
  constructor(label) {
    this.next = 0;
    this.places = Array.from({ length: perRow }, () => el("li", { class: "spot" }));
    this.node = el("div", { class: `row row-${label}` }, el("span", { class: "row-label" }, label), el("ul", {}, ...this.places));
  }

  add(id, source, likes, causes) {
    if (this.places.some((p) => p.dataset.pictureId === id)) return;
    const place = this.places[this.next];
    this.next = (this.next + 1) % perRow;
    place.dataset.pictureId = id;
    place.replaceChildren(el("img", { src: source, alt: "", width: 64, height: 64 }), ...[verdict(likes), because(causes)].filter(Boolean));
  }
}
