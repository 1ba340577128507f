// The JSON door. Where the service asks for a token it is asked of the visitor once and kept for the tab.

const tokenKey = "rebeca.token";

/** ApiError carries the code of an error answer, "unreachable" where there was none. */
export class ApiError extends Error {
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** request is fetch with the token; an answer other than success throws an ApiError. */
export async function request(path, options = {}) {
  for (;;) {
    let response;
    const used = sessionStorage.getItem(tokenKey);
    try {
      response = await fetch(path, { ...options, headers: { ...options.headers, ...bearer(used) } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("unreachable", "the service does not answer", 0);
    }
    if (response.ok) return response;
    if (response.status === 401) {
      await askToken(used);
      continue;
    }
    const body = await response.json().catch(() => ({}));
    throw new ApiError(body.error?.code ?? "unknown", body.error?.message ?? response.statusText, response.status);
  }
}

/** get answers with the JSON of a path. */
export const get = async (path) => (await request(path)).json();

/** post sends JSON and answers with JSON. */
export async function post(path, body, options = {}) {
  const sent = { ...options, method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return (await request(path, sent)).json();
}

/** fetchRefused loads a generated picture that the browser could not load by itself: an <img> sends no token. */
export function fetchRefused(event) {
  const img = event.target;
  const path = img instanceof HTMLImageElement ? img.getAttribute("src") : null;
  if (!path?.startsWith("/v1/images/")) return;
  request(path).then(async (response) => {
    const url = URL.createObjectURL(await response.blob());
    const done = () => URL.revokeObjectURL(url);
    img.addEventListener("load", done, { once: true });
    img.addEventListener("error", done, { once: true });
    img.src = url;
  }, () => {}); // it stays broken: the picture is gone
}

function bearer(token) {
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

let asking = null;

// askToken opens the dialog once, however many calls wait for the token; refused is the one just tried.
function askToken(refused) {
  if (sessionStorage.getItem(tokenKey) !== refused) return Promise.resolve(); // another call has a newer one
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("token-dialog");
    const field = document.getElementById("token-field");
    document.getElementById("token-note").textContent =
      refused === null ? "It is kept until this tab is closed." : "That token was not right. Try again.";
    dialog.addEventListener("close", () => {
      if (field.value !== "") sessionStorage.setItem(tokenKey, field.value);
      field.value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}
