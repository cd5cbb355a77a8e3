// Photos: sending one, and what became of them.

import { all, call, follow, get, send, upload as sendForm } from "./api.js";
import { ask, badge, broken, button, el, empty, field, fill, notify, option } from "./dom.js";
import { claimButton, isClaimable } from "./rewards.js";
import { T } from "./texts.js";
import { addVehicle } from "./vehicles.js";

// Streams of a page at once: browsers open six connections, and the others are needed too.
const FOLLOWED = 3;
// Seconds until the list is read again while more is under way than is followed.
const AGAIN_S = 10;
const KINDS = ["image/jpeg", "image/png", "image/webp", "image/heic", "image/heif"];
// Some systems have no type for it.
const isHeic = ({ name, type }) => type === "image/heic" || type === "image/heif" || /\.hei[cf]$/i.test(name);
// A file that is older than this was not taken just now, ms.
const JUST_NOW = 60_000;
const VEHICLE = "milestream.vehicle";

// ---- what an upload is to a driver ----

export const isUnderWay = ({ verdict, reward, distance_km, appeal }) =>
  verdict === null ||
  verdict === "review" ||
  appeal?.state === "waiting" ||
  (verdict === "verified" && Number(distance_km) > 0 && !["distributed", "cancelled"].includes(reward?.status));

export function state(upload) {
  const { verdict, stage, reward, payout } = upload;
  if (upload.appeal?.state === "waiting") return { text: T.appeal.waiting, tone: "wait" };
  if (verdict === "rejected") return { text: T.reasons[upload.reason] ?? T.verdicts.rejected, tone: "bad" };
  if (verdict === "failed") return { text: T.verdicts.failed, tone: "bad" };
  if (verdict === "review") return { text: T.verdicts.review, tone: "wait" };
  if (verdict === null) return { text: T.stages[stage], tone: "busy" };
  if (reward?.status === "distributed") return { text: T.stages.paid, tone: "good" };
  if (reward?.status === "cancelled") return { text: T.rewards.status.cancelled, tone: "bad" };
  if (isClaimable(reward)) return { text: T.rewards.status.claimable, tone: "wait" };
  if (reward) return { text: payout ? T.stages.payout : T.stages.reward, tone: "busy" };
  return Number(upload.distance_km) > 0 ? { text: T.verdicts.verified, tone: "good" } : { text: T.verdicts.start, tone: "good" };
}

const vehicleName = (vehicles, id) => vehicles.find(({ vehicle_id }) => vehicle_id === id)?.name ?? T.photos.unnamed;

// ---- the form ----

function sendCard(app, sent) {
  const place = el("section", { class: "card send", "aria-labelledby": "send-title" });
  const heading = el("h2", { id: "send-title" }, T.photos.send);
  const driven = app.vehicles.filter(({ retired }) => !retired);
  if (driven.length === 0) {
    const add = button(T.photos.addVehicle, () => addVehicle(async () => {
      app.vehicles = await all("/v1/vehicles");
      place.replaceWith(sendCard(app, sent));
    }), "primary");
    place.append(heading, el("p", {}, el("strong", {}, T.photos.noVehicle), el("br"), T.photos.noVehicleText), add);
    return place;
  }
  const last = localStorage.getItem(VEHICLE);
  const vehicle = el("select", { id: "vehicle" },
    driven.map(({ vehicle_id, name }) => option(vehicle_id, name ?? T.photos.unnamed, vehicle_id === last)));
  const most = T.bytes(app.about.photo_bytes);

  let chosen = null;
  let preview = null;
  const input = el("input", { type: "file", id: "photo", class: "hidden", "aria-label": T.photos.choose, accept: [...KINDS, ".heic", ".heif"].join(","), onchange: () => choose(input.files[0]) });
  const camera = el("input", { type: "file", id: "camera", class: "hidden camera", "aria-label": T.photos.take, accept: "image/*", capture: "environment", onchange: () => choose(camera.files[0]) });
  const drop = el("div", { class: "drop" },
    el("div", { class: "choices" },
      el("label", { for: "camera", class: "button primary camera" }, T.photos.take),
      el("label", { for: "photo", class: "button" }, T.photos.choose)),
    el("p", { class: "hint wide-only" }, T.photos.drop),
    el("p", { class: "hint" }, T.photos.kinds(most)), el("p", { class: "hint" }, T.photos.advice));
  const picture = el("figure", { class: "chosen", hidden: true });
  const claim = el("input", { id: "claim", inputMode: "decimal", autocomplete: "off", pattern: "[0-9]{1,7}([.][0-9]{1,2})?" });
  const bar = el("progress", { max: 100, value: 0, hidden: true, "aria-label": T.photos.send });
  const post = el("button", { type: "submit", class: "primary", hidden: true }, T.photos.post);
  const more = el("details", { hidden: true }, el("summary", {}, T.photos.claim), field(T.photos.claim, claim, T.photos.claimHint));

  function choose(file) {
    if (!file) return;
    if (!KINDS.includes(file.type) && !isHeic(file)) return notify(T.photos.notImage, true);
    if (file.size > app.about.photo_bytes) return notify(T.photos.tooLarge(most), true);
    chosen = file;
    if (preview) URL.revokeObjectURL(preview);
    preview = URL.createObjectURL(file);
    picture.replaceChildren(
      // A name is no proof: what the browser cannot show is none, but for the kind that few browsers know.
      el("img", { src: preview, alt: T.photos.preview, onerror: ({ target }) => (isHeic(file) ? target.remove() : (clear(), notify(T.photos.notImage, true))) }),
      el("figcaption", {}, el("span", {}, `${file.name}, ${T.bytes(file.size)}`), button(T.photos.another, () => clear(), "quiet")));
    for (const [part, hidden] of [[picture, false], [more, false], [post, false], [drop, true], [input, true], [camera, true]]) part.hidden = hidden;
    post.focus();
  }

  function clear() {
    chosen = null;
    input.value = camera.value = claim.value = "";
    for (const [part, hidden] of [[picture, true], [more, true], [post, true], [drop, false], [input, false], [camera, false]]) part.hidden = hidden;
  }

  const form = el("form", { class: "upload" }, heading, field(T.photos.vehicle, vehicle), drop, input, camera, picture, more, bar, post);
  for (const name of ["dragover", "dragenter"]) {
    form.addEventListener(name, (event) => {
      event.preventDefault();
      form.classList.add("over");
    });
  }
  form.addEventListener("dragleave", () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("over");
    choose(event.dataTransfer.files[0]);
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!chosen || post.disabled) return;
    const data = new FormData();
    localStorage.setItem(VEHICLE, vehicle.value);
    data.set("vehicle_id", vehicle.value);
    if (claim.value.trim()) data.set("claimed_mileage", claim.value.trim());
    const unit = driven.find(({ vehicle_id }) => vehicle_id === vehicle.value)?.unit;
    if (unit) data.set("unit", unit);
    if (Date.now() - chosen.lastModified > JUST_NOW) data.set("captured_at", new Date(chosen.lastModified).toISOString());
    data.set("photo", chosen, chosen.name);
    post.disabled = true;
    bar.hidden = false;
    try {
      const { upload_id } = await sendForm("/v1/uploads", data, (percent) => {
        bar.value = percent;
        post.textContent = T.photos.sending(percent);
      });
      notify(T.photos.sent);
      const of = vehicle.value;
      clear();
      await sent(upload_id, of);
    } catch (error) {
      notify(T.problem(error), true);
    } finally {
      post.disabled = false;
      post.textContent = T.photos.post;
      bar.hidden = true;
    }
  });
  place.append(form);
  return place;
}

// ---- the list ----

function row(app, upload) {
  const shown = upload.reading ? T.mileage(upload.reading, upload.unit) : upload.verdict ? T.photos.noReading : T.photos.unread;
  const distance = Number(upload.distance_km) > 0 ? `+${T.km(upload.distance_km)}` : "";
  const reward = upload.reward?.total ? T.b3tr(upload.reward.total) : "";
  return el("li", {}, el("a", { class: "row", href: `#/photos/${upload.upload_id}` },
    el("span", { class: "row-main" },
      el("span", { class: "row-title" }, shown),
      el("span", { class: "row-sub" }, [vehicleName(app.vehicles, upload.vehicle_id ?? app.sentFor.get(upload.upload_id)), T.when(upload.accepted_at)].join(" · "))),
    el("span", { class: "row-side" }, badge(state(upload)), el("span", { class: "row-sum" }, [distance, reward].filter(Boolean).join(" · ")))));
}

export function photosView(app, signal) {
  const list = el("ul", { class: "rows" });
  const foot = el("div", { class: "foot" });
  const history = el("section", { "aria-labelledby": "history" }, el("h2", { id: "history" }, T.photos.history), list, foot);
  const rows = new Map();
  const followed = new Map();

  function put(upload, first = false) {
    const made = row(app, upload);
    const held = rows.get(upload.upload_id);
    rows.set(upload.upload_id, { upload, made });
    if (held) held.made.replaceWith(made);
    else if (first) list.prepend(made);
    else list.append(made);
    if (!isUnderWay(upload)) followed.get(upload.upload_id)?.abort();
  }

  // The newest that are under way are followed; a claim that is waited for needs no stream.
  function watch() {
    const open = [...rows.values()].map(({ upload }) => upload).filter((upload) => isUnderWay(upload) && !isClaimable(upload.reward));
    open.sort((a, b) => b.accepted_at.localeCompare(a.accepted_at));
    for (const { upload_id } of open.slice(0, FOLLOWED)) {
      if (followed.has(upload_id)) continue;
      const stop = new AbortController();
      signal.addEventListener("abort", () => stop.abort(), { once: true });
      followed.set(upload_id, stop);
      follow(upload_id, (upload) => put(upload), stop.signal).finally(() => {
        followed.delete(upload_id);
        if (!signal.aborted) watch();
      });
    }
  }

  async function page(cursor) {
    const { items, next_cursor } = await get(`/v1/uploads?limit=20${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`, { signal });
    items.forEach((upload) => put(upload));
    foot.replaceChildren(...(next_cursor ? [button(T.more, () => page(next_cursor))] : []));
    if (rows.size === 0) foot.replaceChildren(empty(T.photos.none, T.photos.noneText));
    watch();
  }

  async function sent(id, vehicle) {
    app.sentFor.set(id, vehicle);
    foot.querySelector(".empty")?.remove();
    put(await get(`/v1/uploads/${id}`, { signal }), true);
    watch();
  }

  const timer = setInterval(async () => {
    const waiting = [...rows.values()].some(({ upload }) => isUnderWay(upload) && !followed.has(upload.upload_id));
    if (!waiting || document.hidden) return;
    const { items } = await get("/v1/uploads?limit=20", { signal }).catch(() => ({ items: [] }));
    items.forEach((upload) => rows.has(upload.upload_id) && put(upload));
  }, AGAIN_S * 1000);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });

  const begin = async () => {
    try {
      await page();
    } catch (error) {
      if (!signal.aborted) foot.replaceChildren(broken(error, begin));
    }
  };
  begin();
  return [el("h1", {}, T.photos.title), el("div", { class: "columns" }, sendCard(app, sent), history)];
}

// ---- one photo ----

// What stops a photo before its mileage is read.
const POOR = ["unsupported_format", "truncated_image", "too_dark", "over_exposed", "blurred", "glare", "low_resolution"];

// Which of the steps are done, which one is under way, and whether it stopped there.
function progress(upload) {
  const at = { quality_check: 1, odometer_reading: 2, fraud_check: 3, review: 3, decided: 4, reward: 4, payout: 5, paid: 6 }[upload.stage];
  const isStopped = ["rejected", "failed"].includes(upload.verdict);
  const stop = upload.reading ? 3 : POOR.includes(upload.reason) ? 1 : 2;
  const earns = Number(upload.distance_km) > 0;
  const steps = T.steps.slice(0, upload.verdict === "verified" && !earns ? 4 : T.steps.length);
  return el("ol", { class: "steps" }, steps.map(([, text], place) => {
    const done = place < (isStopped ? stop : at);
    const now = !isStopped && place === at;
    const kind = done ? "done" : now ? "now" : isStopped && place === stop ? "stopped" : "later";
    const shown = kind === "stopped" ? T.verdicts[upload.verdict] : now && upload.stage === "review" ? T.stages.review : text;
    return el("li", { class: kind, "aria-current": now ? "step" : undefined }, shown);
  }));
}

const fact = (name, value) => (value ? [el("dt", {}, name), el("dd", {}, value)] : []);

// What a driver can do about a rejection, or has done.
function appeal(upload, changed) {
  const { state: stands, until, appealed_at, decided_at, text } = upload.appeal ?? {};
  if (stands === "waiting" || stands === "decided")
    return el("div", { class: "appeal" },
      el("p", { class: "hint" }, stands === "waiting" ? T.appeal.waitingText(T.when(appealed_at)) : T.appeal.decidedText(T.when(decided_at))),
      text ? el("p", { class: "hint" }, `${T.appeal.said}: ${text}`) : null);
  if (stands !== "possible" || Date.parse(until) <= Date.now()) return null;
  const said = el("textarea", { rows: 4, maxLength: 1000, id: "appeal-text" });
  const dialog = () =>
    ask(T.appeal.title, field(T.appeal.text, said, T.appeal.textHint), T.appeal.send, async () => {
      const words = said.value.trim();
      await send("POST", `/v1/uploads/${upload.upload_id}/appeal`, words ? { text: words } : {});
      notify(T.appeal.sent);
      await changed();
    });
  return el("div", { class: "appeal" }, button(T.appeal.ask, dialog), el("p", { class: "hint" }, T.appeal.until(T.when(until))));
}

function facts(app, upload, changed) {
  const { reward, payout } = upload;
  const paying = payout && el("span", {}, payout.status === "confirmed" ? T.stages.paid : T.rewards.confirmations(payout.confirmations ?? 0));
  return el("div", {},
    el("p", { class: "state" }, badge(state(upload))),
    upload.verdict !== "verified" && upload.advice ? el("p", { class: "advice" }, upload.advice) : null,
    upload.explanation ? el("p", { class: "hint" }, upload.explanation) : null,
    upload.verdict === "verified" && upload.advice ? el("p", { class: "hint" }, upload.advice) : null,
    upload.correction ? el("p", { class: "hint" }, T.photos.corrected(T.mileage(upload.correction.reading_before, upload.unit), T.when(upload.correction.corrected_at))) : null,
    el("dl", { class: "facts" },
      fact(T.photos.reading, upload.reading && T.mileage(upload.reading, upload.unit)),
      fact(T.photos.distance, Number(upload.distance_km) > 0 && T.km(upload.distance_km)),
      fact(T.photos.reward, reward?.total && T.b3tr(reward.total)),
      fact(T.photos.payment, paying),
      fact(T.rewards.transaction, payout && el("code", { title: payout.tx_id }, T.short(payout.tx_id))),
      fact(T.photos.ofVehicle, vehicleName(app.vehicles, upload.vehicle_id ?? app.sentFor.get(upload.upload_id))),
      fact(T.photos.sentAt, T.when(upload.accepted_at))),
    isClaimable(reward) ? claimButton(reward.id, changed) : null,
    appeal(upload, changed),
    el("h2", {}, T.photos.progress), progress(upload));
}

export function photoView(app, signal, id) {
  const picture = el("figure", { class: "photo" });
  const place = el("div", {});
  let followed = new AbortController();
  signal.addEventListener("abort", () => followed.abort(), { once: true });
  const load = async () => {
    const upload = await get(`/v1/uploads/${id}`, { signal });
    followed.abort();
    followed = new AbortController();
    if (isUnderWay(upload)) follow(id, (newer) => place.replaceChildren(facts(app, newer, changed)), followed.signal);
    return facts(app, upload, changed);
  };
  const changed = async () => place.replaceChildren(await load());
  fill(place, load);
  (async () => {
    try {
      const blob = await (await call("GET", `/v1/uploads/${id}/photo`, { signal })).blob();
      const url = URL.createObjectURL(blob);
      signal.addEventListener("abort", () => URL.revokeObjectURL(url), { once: true });
      picture.replaceChildren(el("img", { src: url, alt: T.photos.photo }));
    } catch {
      if (!signal.aborted) picture.replaceChildren(el("p", { class: "hint" }, T.photos.noPhoto));
    }
  })();
  return [
    el("p", { class: "crumb" }, el("a", { href: "#/" }, `‹ ${T.photos.title}`)),
    el("h1", {}, T.photos.photo),
    el("div", { class: "columns photo-page" }, picture, el("section", { class: "card" }, place)),
  ];
}
