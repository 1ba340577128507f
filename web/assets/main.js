// The page: header numbers, the router, and one event stream for whatever is shown.

import { fetchRefused } from "/assets/api.js";
import { count, milliseconds } from "/assets/dom.js";
import { follow } from "/assets/stream.js";
import { Plots } from "/assets/plots.js";
import { People } from "/assets/people.js";
import { You } from "/assets/you.js";
import { UserPage } from "/assets/user.js";

const gallery = document.getElementById("gallery");
const userRoot = document.getElementById("user");
const plots = new Plots(document.getElementById("plots"));
const people = new People(document.getElementById("people"));
const you = new You(document.getElementById("you"));

let page = null; // the UserPage shown, null on the gallery
let stream = null; // its AbortController

function number(name, text) {
  const node = document.querySelector(`[data-number="${name}"]`);
  if (node.textContent !== text) node.textContent = text;
}

function showStatus({ at, status }) {
  number("events_folded", count(status.events_folded));
  number("generated", count(status.generated));
  number("users", count(status.users));
  number("prior", status.prior_version === null ? "none yet" : `v${status.prior_number} · step ${count(status.step)}`);
  const latency = status.event_to_image_ms;
  number("latency", latency === null ? "–" : `${milliseconds(latency.p50)} / ${milliseconds(latency.p99)}`);
  plots.add(at, status);
}

function live(state) {
  const node = document.querySelector("[data-live]");
  node.dataset.live = state;
  document.getElementById("live-text").textContent = state === "open" ? "live" : "connection lost, trying again";
}

function connect(user) {
  stream?.abort();
  stream = new AbortController();
  const path = user === null ? "/v1/events" : `/v1/events?user=${encodeURIComponent(user)}`;
  const handlers = {
    status: showStatus,
    history: (points) => plots.reset(points),
    people: (cards) => people.cards(cards),
    feedback: (event) => (page ?? people).feedback(event),
    generated: (event) => (page ?? people).generated(event),
  };
  follow(path, handlers, live, stream.signal);
}

function route() {
  const match = /^#\/u\/(.+)$/.exec(location.hash);
  const user = match ? decodeURIComponent(match[1]) : null;
  if (match === null && location.hash !== "" && !location.hash.startsWith("#/")) return; // a skip link
  page = user === null ? null : new UserPage(userRoot, user);
  gallery.hidden = user !== null;
  userRoot.hidden = user === null;
  document.body.dataset.page = user === null ? "gallery" : "user";
  document.title = user === null ? "Rebeca" : `${user} · Rebeca`;
  window.scrollTo(0, 0);
  connect(user);
}

window.addEventListener("hashchange", route);
document.addEventListener("error", fetchRefused, true); // errors of images do not bubble
route();
you.start();
