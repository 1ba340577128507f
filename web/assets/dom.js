// Small things every part of the page needs: elements, icons and the way numbers are written.

const svgNames = "http://www.w3.org/2000/svg";

/** el makes an element: attributes by name (null leaves one out, on… adds a listener), then children. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** svg is el for the elements of an SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(svgNames, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

const paths = {
  like: "M12 20.300s-7.800-4.600-7.800-10.200a4.300 4.300 0 0 1 7.800-2.500 4.300 4.300 0 0 1 7.800 2.500c0 5.600-7.800 10.200-7.800 10.200z",
  dislike: "M6.500 6.500l11 11M17.500 6.500l-11 11",
  tick: "M5.500 12.500l4.200 4.300 8.800-9.300",
  cross: "M7 7l10 10M17 7L7 17",
};

/** icon draws one of like, dislike, tick, cross; it is decoration, its button or figure carries the words. */
export function icon(name) {
  return svg("svg", { class: `icon icon-${name}`, viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: paths[name] }));
}

/** because is the row of thumbnails beneath a picture: the likes it is owed to, null where none is known. */
export function because(causes) {
  if (!causes?.length) return null;
  return el("ul", { class: "because", title: "because of these likes", "aria-label": "because of these likes" },
    ...causes.slice(0, 3).map((c) => el("li", {}, el("img", { src: c.image, alt: `item ${c.id}`, width: 64, height: 64 }))));
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** count writes 12,345. */
export const count = (n) => whole.format(n);

/** percent writes a share as 87 %. */
export const percent = (share) => `${Math.round(share * 100)} %`;

/** milliseconds writes 83 ms or 1.2 s. */
export function milliseconds(ms) {
  return ms < 999.5 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;
}

/** clock writes the local time of a moment to the second. */
export const clock = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** imageOf gives the source of a generated record's picture; a service without a decoder shows its embedding. */
export function imageOf(record) {
  const image = record.image;
  if (image?.data) return `data:${image.media_type};base64,${image.data}`;
  if (image?.uri) return `/v1/images/${image.sha256}`;
  return glyph(record.embedding_f32);
}

// glyph draws an embedding as bars around a middle line, so that equal tastes look alike without pixels.
function glyph(embedding) {
  const bytes = Uint8Array.from(atob(embedding), (c) => c.charCodeAt(0));
  const values = new Float32Array(bytes.buffer).slice(0, 64);
  const largest = Math.max(...values.map(Math.abs), 1e-6);
  const width = 64 / values.length;
  const bars = Array.from(values, (v, i) => {
    const height = Math.max(1, (Math.abs(v) / largest) * 26);
    const hue = v > 0 ? "#3a4bd6" : "#c4704b";
    return `<rect x="${(i * width).toFixed(2)}" y="${(v > 0 ? 32 - height : 32).toFixed(2)}" width="${(width * 0.72).toFixed(2)}" height="${height.toFixed(2)}" fill="${hue}"/>`;
  });
  return `data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" fill="#eceae6"/>${bars.join("")}</svg>`)}`;
}
