// The gateway, for a page: the session of this browser, requests with its token, and event streams.

const SESSION = "milestream.session";
const DEVICE = "milestream.device";
// A token is changed for the next when it has less than this left, seconds.
const EARLY_S = 30;

export class Problem extends Error {
  constructor(status, document = {}) {
    super(document.detail ?? `status ${status}`);
    this.status = status;
    this.code = document.code;
    this.field = document.field;
    this.retryAfter = document.retry_after;
  }
}

let ended = () => {};

// Who is told when the session has ended by itself.
export const onEnd = (tell) => {
  ended = tell;
};

export function session() {
  try {
    return JSON.parse(localStorage.getItem(SESSION));
  } catch {
    return null;
  }
}

export function keep(tokens) {
  const { access_token, refresh_token, expires_in, session_id, user_id } = tokens;
  const expires_at = Date.now() + expires_in * 1000;
  localStorage.setItem(SESSION, JSON.stringify({ access_token, refresh_token, expires_at, session_id, user_id }));
}

export function forget() {
  localStorage.removeItem(SESSION);
}

const request = (method, path, { json, headers = {}, ...more } = {}) =>
  fetch(path, {
    method,
    headers: json === undefined ? headers : { ...headers, "content-type": "application/json" },
    body: json === undefined ? undefined : JSON.stringify(json),
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    referrerPolicy: "no-referrer",
    ...more,
  });

async function checked(response) {
  if (response.ok) return response;
  throw new Problem(response.status, await response.json().catch(() => ({})));
}

// Without a token.
export async function open(method, path, options) {
  return (await checked(await request(method, path, options))).json();
}

// One at a time over all tabs: a refresh token is good once, and one that comes again ends the session.
const alone = (action) =>
  navigator.locks ? navigator.locks.request("milestream.refresh", action) : (queue = queue.then(action, action));
let queue = Promise.resolve();

const isFresh = (held) => held && held.expires_at - Date.now() > EARLY_S * 1000;

// A token that is good for a while.
export async function token(stale) {
  const held = session();
  if (!held) throw new Problem(401, { code: "signed_out", detail: "you are signed out" });
  if (isFresh(held) && held.access_token !== stale) return held.access_token;
  return alone(async () => {
    const now = session();
    if (!now) throw new Problem(401, { code: "signed_out", detail: "you are signed out" });
    if (isFresh(now) && now.access_token !== stale) return now.access_token;
    try {
      const tokens = await open("POST", "/v1/auth/refresh", { json: { refresh_token: now.refresh_token } });
      keep(tokens);
      return tokens.access_token;
    } catch (error) {
      if (error.status === 401 || error.status === 403) end();
      throw error;
    }
  });
}

function end() {
  if (!session()) return;
  forget();
  ended();
}

// With the session's token; once more with a new one where it has expired meanwhile.
export async function call(method, path, options = {}) {
  const bearer = await token();
  const send = (value) => request(method, path, { ...options, headers: { ...options.headers, authorization: `Bearer ${value}` } });
  let response = await send(bearer);
  if (response.status === 401) {
    // A body that is a stream could not be sent again; none here is.
    response = await send(await token(bearer));
    if (response.status === 401) end();
  }
  return checked(response);
}

export const get = async (path, options) => (await call("GET", path, options)).json();
export const send = async (method, path, json) => {
  const response = await call(method, path, { json });
  return response.status === 204 ? null : response.json();
};

// A file with its name; tells how many bytes have come.
export async function download(path, progress) {
  const response = await call("GET", path);
  const name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? "export.zip";
  const reader = response.body.getReader();
  const pieces = [];
  let bytes = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { name, blob: new Blob(pieces, { type: response.headers.get("content-type") ?? "" }) };
    pieces.push(value);
    progress((bytes += value.length));
  }
}

// A whole list of few items, such as vehicles.
export async function all(path) {
  const items = [];
  let cursor = "";
  do {
    const page = await get(`${path}?limit=100${cursor}`);
    items.push(...page.items);
    cursor = page.next_cursor ? `&cursor=${encodeURIComponent(page.next_cursor)}` : "";
  } while (cursor);
  return items;
}

// The id of this browser, made once and kept over sign-outs: a phone is the same whoever uses it. Without storage there is none.
function device() {
  try {
    const kept = localStorage.getItem(DEVICE);
    if (kept) return kept;
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    const made = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    localStorage.setItem(DEVICE, made);
    return made;
  } catch {
    return null;
  }
}

// Sends a form and tells how far it is, 0 to 100.
export async function upload(path, form, progress) {
  const bearer = await token();
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", path);
    sending.setRequestHeader("authorization", `Bearer ${bearer}`);
    const id = device();
    if (id) sending.setRequestHeader("x-device-id", id);
    sending.responseType = "json";
    sending.upload.addEventListener("progress", ({ loaded, total }) => total && progress(Math.floor((100 * loaded) / total)));
    sending.addEventListener("load", () => {
      const fine = sending.status >= 200 && sending.status < 300;
      if (fine) resolve(sending.response);
      else reject(new Problem(sending.status, sending.response ?? {}));
    });
    sending.addEventListener("error", () => reject(Object.assign(new Error("offline"), { offline: true })));
    sending.send(form);
  });
}

const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });

// Follows an upload until nothing more comes, and goes on after a break where it left off.
export async function follow(id, show, signal) {
  let last = "";
  let wait = 1000;
  while (!signal.aborted) {
    try {
      const headers = last ? { "last-event-id": last } : {};
      const response = await call("GET", `/v1/uploads/${id}/events`, { headers, signal });
      if (response.status === 204) return;
      for await (const event of events(response.body)) {
        if (event.id) last = event.id;
        if (event.data) show(JSON.parse(event.data));
        wait = 1000;
      }
    } catch (error) {
      if (signal.aborted || error.code === "signed_out" || error.status === 404) return;
    }
    await pause(wait, signal);
    wait = Math.min(wait * 2, 30000);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split(/\r?\n\r?\n/);
    text = blocks.pop();
    for (const block of blocks) {
      const event = {};
      for (const line of block.split(/\r?\n/)) {
        const at = line.indexOf(":");
        if (at > 0) event[line.slice(0, at)] = line.slice(at + 1).trimStart();
      }
      yield event;
    }
  }
}
