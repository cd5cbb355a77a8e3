// What somebody is told and how: by e-mail and by webhook, the secret that webhooks are signed with, and what was told so far.

import { get, send } from "./api.js";
import { badge, button, el, field, fill, notify, tick } from "./dom.js";
import { T } from "./texts.js";

const N = T.notices;

// A way of telling: whether it is used, and for what. `more` stands between the two.
function channel(name, held, more = null) {
  const on = tick(N.on[name], held.enabled);
  const events = Object.entries(N.events).map(([event, text]) => ({ event, ...tick(text, held.events.includes(event)) }));
  return {
    row: el("fieldset", {}, el("legend", {}, N.channels[name]), on.row, more, el("p", { class: "hint" }, N.what), events.map(({ row }) => row)),
    value: () => ({ ...held, enabled: on.input.checked, events: events.filter(({ input }) => input.checked).map(({ event }) => event) }),
  };
}

// The form. `put` puts preferences in as a whole; `form` makes one that saves.
export function noticesForm(held, { put, form, again }) {
  const { email, webhook } = held.notification_preferences;
  const url = el("input", { type: "url", value: webhook.to ?? "", maxLength: 500, autocomplete: "off", spellcheck: false });
  const byMail = channel("email", email);
  const byHook = channel("webhook", webhook, field(N.url, url, N.urlHint));
  const save = (changed) => put({ ...held, notification_preferences: { ...held.notification_preferences, ...changed } });
  const saved = form([byMail.row, byHook.row], () => {
    const { to: _, ...hook } = byHook.value();
    const to = url.value.trim();
    return save({ email: byMail.value(), webhook: to ? { ...hook, to } : hook });
  });
  const remove = button(N.remove, async () => {
    await save({ webhook: { enabled: false, events: [] } });
    notify(N.removed);
    again();
  }, "quiet");
  return [saved, el("div", { class: "actions start" }, button(N.secret, showSecret), webhook.to ? remove : null)];
}

// A secret is shown once: the one before signs no more.
async function showSecret() {
  const { secret } = await send("POST", "/v1/notices/secret");
  const dialog = el("dialog", { "aria-labelledby": "secret-title", onclose: () => dialog.remove() });
  const value = el("code", { class: "secret" }, secret);
  const copy = button(N.copy, async () => {
    await navigator.clipboard.writeText(secret);
    notify(N.copied);
  });
  dialog.append(el("h2", { id: "secret-title" }, N.secretTitle), el("p", {}, N.secretText), value,
    el("div", { class: "actions" }, copy, button(N.close, () => dialog.close(), "primary")));
  document.body.append(dialog);
  dialog.showModal();
}

const TONES = { delivered: "good", given_up: "bad", waiting: "wait" };

function told(notice, again) {
  const sub = [N.channels[notice.channel] ?? notice.channel, T.when(notice.occurred_at), notice.attempts > 1 && N.attempts(notice.attempts)].filter(Boolean).join(" · ");
  return el("li", {}, el("div", { class: "row" },
    el("span", { class: "row-main" },
      el("span", { class: "row-title" }, N.events[notice.type] ?? notice.type),
      el("span", { class: "row-sub" }, sub),
      notice.error ? el("span", { class: "row-sub" }, notice.error) : null),
    el("span", { class: "row-side actions" },
      badge({ text: N.status[notice.status], tone: TONES[notice.status] }),
      button(notice.status === "waiting" ? N.sendNow : N.sendAgain, async () => {
        await send("POST", `/v1/notices/${notice.id}/send`);
        notify(N.sent);
        await again();
      }))));
}

// What was told, newest first.
export function deliveries(place, signal) {
  const load = () => fill(place, async () => {
    const page = await get("/v1/notices?limit=10", { signal });
    if (page.items.length === 0) return el("p", { class: "hint" }, N.none);
    const list = el("ul", { class: "rows" }, page.items.map((notice) => told(notice, load)));
    let cursor = page.next_cursor;
    const more = cursor && button(T.more, async () => {
      const next = await get(`/v1/notices?limit=10&cursor=${encodeURIComponent(cursor)}`, { signal });
      list.append(...next.items.map((notice) => told(notice, load)));
      cursor = next.next_cursor;
      if (!cursor) more.remove();
    });
    return [list, more ? el("div", { class: "foot" }, more) : ""];
  });
  return load();
}
