// The reviewers' page: takes an item of the queue, shows it, sends the decision, and goes on with the next. Everything that is shown comes
// by `textContent`: nothing that a driver or a photo says is ever read as HTML.

import { forget, session, token } from "./api.js";

// A token that was pasted; who signed in with a wallet has a session instead.
const TOKEN = "milestream.token";
// What a person may turn a photo down for; the digit that chooses it is its place.
const REASONS = [
  "review_rejected",
  "no_odometer",
  "several_readings",
  "blurred",
  "duplicate_photo",
  "rollback",
  "claim_mismatch",
  "edited_photo",
  "photo_of_screen",
];
const UNITS = ["km", "miles", null];
const ZOOM = { least: 1, most: 12, step: 1.25 };
const BRIGHTNESS = { least: 0.4, most: 3, step: 0.2 };
// Seconds until an empty queue is looked at again.
const EMPTY_WAIT_S = 15;

const by = (id) => document.getElementById(id);

// Whether the session of this browser turned out to be no reviewer's.
let isRefused = false;
let item = null;
let picture = null;
let unit = "km";
let candidate = -1;
let busy = false;
let waiting = 0;
let done = 0;
// Items that the person passed over: they come again when the page is loaded anew.
const passed = new Set();
let view = { zoom: 1, x: 0.5, y: 0.5, brightness: 1, boxes: true };

class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? `status ${status}`);
    this.status = status;
    this.code = document.code;
    this.retryAfter = document.retry_after;
  }
}

function say(text, isError = false) {
  by("status").textContent = text.charAt(0).toUpperCase() + text.slice(1);
  by("status").classList.toggle("error", isError);
}

const isSignedIn = () => sessionStorage.getItem(TOKEN) !== null || (session() !== null && !isRefused);
const bearer = async () => sessionStorage.getItem(TOKEN) ?? token();

async function call(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: { authorization: `Bearer ${await bearer()}` },
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    referrerPolicy: "no-referrer",
  });
  if (response.ok) return response;
  const document = await response.json().catch(() => ({}));
  if (response.status === 401 || document.code === "role_missing") signOut(document.detail);
  throw new Problem(response.status, document);
}

// Ends the session too, where it was not the gateway that refused it.
async function leave() {
  if (sessionStorage.getItem(TOKEN) === null && session()) {
    await call("POST", "/v1/auth/logout").catch(() => {});
    forget();
  }
  signOut();
}

function signOut(why) {
  if (sessionStorage.getItem(TOKEN) === null) isRefused = true;
  sessionStorage.removeItem(TOKEN);
  clearTimeout(waiting);
  item = null;
  show("sign-in");
  by("token").value = "";
  by("token").focus();
  say(why ?? "Signed out", why !== undefined);
}

function show(which) {
  by("sign-in").hidden = which !== "sign-in";
  by("desk").hidden = which !== "desk";
  by("nothing").hidden = which !== "nothing";
  by("sign-out").hidden = which === "sign-in";
}

// ---- the queue ----

async function next() {
  clearTimeout(waiting);
  item = null;
  let cursor = "";
  do {
    const page = await (await call("GET", `/v1/reviews?limit=50${cursor}`)).json();
    for (const { upload_id } of page.items.filter(({ upload_id }) => !passed.has(upload_id))) {
      try {
        const claimed = await (await call("POST", `/v1/reviews/${upload_id}/claim`)).json();
        await open(claimed);
        return;
      } catch (error) {
        // Another person was quicker, or it has ended meanwhile.
        if (!(error instanceof Problem) || ![404, 409, 410].includes(error.status)) throw error;
      }
    }
    cursor = page.next_cursor ? `&cursor=${encodeURIComponent(page.next_cursor)}` : "";
  } while (cursor);
  show("nothing");
  say(`Nothing waits for you. ${done} decided.`);
  waiting = setTimeout(() => run(next), EMPTY_WAIT_S * 1000);
}

async function open(claimed) {
  const blob = await (await call("GET", claimed.photo)).blob();
  const opened = await createImageBitmap(blob);
  picture?.close();
  [picture, item] = [opened, claimed];
  view = { zoom: 1, x: 0.5, y: 0.5, brightness: 1, boxes: true };
  candidate = -1;
  by("mileage").value = "";
  by("notes").value = "";
  by("reasons").hidden = true;
  fill();
  show("desk");
  if (item.candidates.length > 0) nextCandidate();
  else setUnit("km");
  draw();
  by("mileage").focus();
  say(`${done} decided. Yours until ${time(item.claimed_until)}.`);
}

const time = (text) => (text ? new Date(text).toLocaleTimeString() : "");
const date = (text) => (text ? new Date(text).toLocaleString() : "");

function cells(row) {
  const tr = document.createElement("tr");
  for (const text of row) {
    const td = document.createElement("td");
    td.textContent = text ?? "";
    tr.append(td);
  }
  return tr;
}

/** What a check has measured: one value, or several with their names. */
function measured(value) {
  if (value === null || typeof value !== "object") return value;
  return Object.entries(value).map(([name, part]) => `${name} ${part}`).join(", ");
}

function fill() {
  const facts = [
    ["accepted", date(item.accepted_at)],
    ["typed", item.claimed ?? "nothing"],
    ["read", item.reading ?? "nothing"],
    ["decision of", { reviewer: "one person", second_person: "a second person", operator: "an operator" }[item.needs]],
  ];
  by("facts").replaceChildren(
    ...facts.flatMap(([name, value]) => {
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      dt.textContent = name;
      dd.textContent = value ?? "";
      return [dt, dd];
    }),
  );
  const rule = item.appealed ? "The driver appeals. Turned down by the rule " : "";
  by("doubt").textContent = `${rule}${item.reason}: ${item.detail}`;
  by("appeal").hidden = !item.appealed;
  by("appeal").textContent = item.appeal_text ?? "The driver says nothing to it.";
  by("candidates").replaceChildren(
    ...item.candidates.map((seen) => {
      const li = document.createElement("li");
      li.textContent = `${seen.value} ${seen.unit ?? ""} (${seen.confidence})`;
      return li;
    }),
  );
  const checks = Object.entries(item.signals.checks ?? {});
  by("checks").replaceChildren(
    ...checks.map(([name, { value, threshold, against }]) => {
      const row = cells([name, measured(value), measured(threshold)]);
      row.classList.toggle("against", against === true);
      return row;
    }),
  );
  const history = item.history.map((earlier) =>
    cells([date(earlier.accepted_at), `${earlier.mileage ?? "–"} ${earlier.unit ?? ""}`, earlier.status]),
  );
  by("history").replaceChildren(...(history.length > 0 ? history : [cells(["none", "", ""])]));
}

// ---- the photo ----

function draw() {
  const canvas = by("photo");
  if (!picture || canvas.clientWidth === 0) return;
  const dense = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * dense;
  canvas.height = canvas.clientHeight * dense;
  canvas.style.filter = `brightness(${view.brightness})`;
  const whole = Math.min(canvas.width / picture.width, canvas.height / picture.height);
  const scale = whole * view.zoom;
  const context = canvas.getContext("2d");
  context.setTransform(
    scale, 0, 0, scale,
    canvas.width / 2 - view.x * picture.width * scale,
    canvas.height / 2 - view.y * picture.height * scale,
  );
  context.drawImage(picture, 0, 0);
  if (!view.boxes || !item?.boxes?.boxes) return;
  // Boxes are in the pixels that were read, which may be fewer than the photo's.
  const [fitX, fitY] = [picture.width / (item.boxes.width || picture.width), picture.height / (item.boxes.height || picture.height)];
  context.lineWidth = (2 * dense) / scale;
  for (const { quad, role } of item.boxes.boxes) {
    context.strokeStyle = role === "reading" ? "#00e676" : "#ffb300";
    context.beginPath();
    for (const [x, y] of quad) context.lineTo(x * fitX, y * fitY);
    context.closePath();
    context.stroke();
  }
}

const within = (value, { least, most }) => Math.min(most, Math.max(least, value));

function zoom(by_) {
  view.zoom = within(view.zoom * by_, ZOOM);
  draw();
}

function move(x, y) {
  const step = 0.15 / view.zoom;
  view.x = within(view.x + x * step, { least: 0, most: 1 });
  view.y = within(view.y + y * step, { least: 0, most: 1 });
  draw();
}

function brighten(by_) {
  view.brightness = within(view.brightness + by_, BRIGHTNESS);
  draw();
}

// ---- the decision ----

function setUnit(value) {
  unit = value;
  by("unit").textContent = unit ?? "no unit";
}

function nextCandidate() {
  if (item.candidates.length === 0) return;
  candidate = (candidate + 1) % item.candidates.length;
  const seen = item.candidates[candidate];
  by("mileage").value = seen.value;
  setUnit(seen.unit);
  by("mileage").select();
}

function approve() {
  const mileage = by("mileage").value.trim();
  if (!/^\d{1,7}(\.\d)?$/.test(mileage)) {
    say("A mileage is a number below 10,000,000 with at most one decimal place.", true);
    by("mileage").focus();
    return;
  }
  decide({ decision: "approve", mileage, unit });
}

function askReason() {
  const list = by("reasons");
  list.hidden = !list.hidden;
  if (!list.hidden) list.querySelector("button").focus();
}

function decide(decision) {
  const notes = by("notes").value.trim();
  const upload = item.upload_id;
  run(async () => {
    const decided = await (await call("POST", `/v1/reviews/${upload}`, notes ? { ...decision, notes } : decision)).json();
    done += 1;
    const waits = { second_person: "A second person is asked. ", operator: "An operator is asked. " };
    await next();
    if (decided.decision === null) say(`${waits[decided.needs] ?? ""}${by("status").textContent}`);
  });
}

function pass() {
  passed.add(item.upload_id);
  run(next);
}

// One thing at a time: a key that is held down decides one photo, not five.
async function run(action) {
  if (busy) return;
  busy = true;
  try {
    await action();
  } catch (error) {
    const again = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
    if (isSignedIn()) say(`${error.message}.${again}`.replace("..", "."), true);
    // What another person has decided or holds is not to be looked at any longer.
    if (error instanceof Problem && [409, 410].includes(error.status) && item) {
      passed.add(item.upload_id);
      busy = false;
      await run(next);
      say(error.message, true);
    }
  } finally {
    busy = false;
  }
}

const keys = {
  Enter: approve,
  r: askReason,
  p: () => decide({ decision: "another_photo" }),
  n: pass,
  c: nextCandidate,
  u: () => setUnit(UNITS[(UNITS.indexOf(unit) + 1) % UNITS.length]),
  t: () => by("notes").focus(),
  b: () => {
    view.boxes = !view.boxes;
    draw();
  },
  f: () => {
    view = { ...view, zoom: 1, x: 0.5, y: 0.5 };
    draw();
  },
  "+": () => zoom(ZOOM.step),
  "=": () => zoom(ZOOM.step),
  "-": () => zoom(1 / ZOOM.step),
  "[": () => brighten(-BRIGHTNESS.step),
  "]": () => brighten(BRIGHTNESS.step),
  ArrowLeft: () => move(-1, 0),
  ArrowRight: () => move(1, 0),
  ArrowUp: () => move(0, -1),
  ArrowDown: () => move(0, 1),
};

document.addEventListener("keydown", (event) => {
  if (by("desk").hidden || !item || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    by("reasons").hidden = true;
    by("mileage").focus();
    return;
  }
  if (event.target === by("notes")) return;
  const chosen = REASONS[Number(event.key) - 1];
  if (!by("reasons").hidden && chosen) {
    event.preventDefault();
    decide({ decision: "reject", reason: chosen });
    return;
  }
  // A button that has the focus is pressed by Enter itself.
  if (event.key === "Enter" && (event.target instanceof HTMLButtonElement || event.repeat)) return;
  // A mileage is digits and a point: every other key of the field is a command.
  if (Object.hasOwn(keys, event.key)) {
    event.preventDefault();
    if (!busy) keys[event.key]();
  }
});

by("reasons").replaceChildren(
  ...REASONS.map((reason) => {
    const [li, button] = [document.createElement("li"), document.createElement("button")];
    button.type = "button";
    button.textContent = reason;
    button.addEventListener("click", () => decide({ decision: "reject", reason }));
    li.append(button);
    return li;
  }),
);
by("approve").addEventListener("click", approve);
by("reject").addEventListener("click", askReason);
by("another").addEventListener("click", keys.p);
by("next").addEventListener("click", pass);
by("unit").addEventListener("click", keys.u);
by("sign-out").addEventListener("click", leave);
by("by-token").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, by("token").value.trim());
  show("loading");
  run(next);
});
window.addEventListener("resize", draw);

if (isSignedIn()) {
  show("loading");
  run(next);
} else {
  signOut();
  say("");
}
