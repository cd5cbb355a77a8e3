// Rewards: what was earned, what waits to be claimed, and what is on its way.

import { get, send } from "./api.js";
import { badge, button, el, empty, fill, notify } from "./dom.js";
import { T } from "./texts.js";

export const isClaimable = (reward) => reward?.awaits_claim === true;

let automatic = true;

// Whether rewards are paid by themselves, as preferences say.
export const isAutomatic = () => automatic;
export const setAutomatic = (value) => {
  automatic = value;
};

export function claimButton(id, changed) {
  return button(T.rewards.claim, async () => {
    await send("POST", `/v1/rewards/${id}/claim`);
    notify(T.rewards.claimed);
    await changed?.();
  }, "primary");
}

function state(reward) {
  const { status } = reward;
  if (isClaimable(reward)) return { text: T.rewards.status.claimable, tone: "wait" };
  const tone = { distributed: "good", cancelled: "bad" }[status] ?? "busy";
  return { text: T.rewards.status[status] ?? "", tone };
}

function row(reward, changed) {
  const { payout, total, distance_km } = reward;
  const made = el("li", {});
  const sub = [distance_km && T.km(distance_km), T.when(reward.created_at)].filter(Boolean).join(" · ");
  const paying = payout && payout.status !== "confirmed" ? T.rewards.confirmations(payout.confirmations ?? 0) : null;
  made.append(el("div", { class: "row" },
    el("span", { class: "row-main" },
      el("span", { class: "row-title" }, total === null ? "…" : T.b3tr(total)),
      el("span", { class: "row-sub" }, sub),
      reward.detail ? el("span", { class: "row-sub" }, `${T.reasons[reward.reason] ?? reward.reason}: ${reward.detail}`) : null,
      payout ? el("span", { class: "row-sub" }, `${T.rewards.transaction} `, el("code", { title: payout.tx_id }, T.short(payout.tx_id)), paying ? ` · ${paying}` : "") : null,
      el("a", { class: "row-link", href: `#/photos/${reward.upload_id}` }, T.rewards.forPhoto)),
    el("span", { class: "row-side" }, badge(state(reward)),
      isClaimable(reward) ? claimButton(reward.id, changed) : null)));
  return made;
}

const figure = (name, value, strong) => el("div", { class: strong ? "figure strong" : "figure" }, el("dt", {}, name), el("dd", {}, value));

export function rewardsView(app, signal) {
  const place = el("div", {});
  const load = () => fill(place, async () => {
    const [me, page] = await Promise.all([get("/v1/me", { signal }), get("/v1/rewards?limit=50", { signal })]);
    const list = el("ul", { class: "rows" });
    const add = (items) => list.append(...items.map((reward) => row(reward, load)));
    add(page.items);
    const waiting = page.items.filter((reward) => isClaimable(reward));
    const sum = waiting.reduce((sum, { total }) => sum + Number(total), 0);
    let cursor = page.next_cursor;
    const more = cursor && button(T.more, async () => {
      const next = await get(`/v1/rewards?limit=50&cursor=${encodeURIComponent(cursor)}`, { signal });
      add(next.items);
      cursor = next.next_cursor;
      if (!cursor) more.remove();
    });
    return [
      el("dl", { class: "figures" },
        figure(T.rewards.earned, T.b3tr(me.total_rewards), true),
        figure(T.rewards.driven, T.km(me.total_mileage)),
        waiting.length > 0 ? figure(T.rewards.waiting, T.b3tr(String(Number(sum.toFixed(8))))) : null),
      el("p", { class: "hint" }, isAutomatic() ? T.rewards.auto : T.rewards.manual),
      page.items.length > 0 ? list : empty(T.rewards.none, T.rewards.noneText),
      more ? el("div", { class: "foot" }, more) : "",
    ];
  });
  load();
  return [el("h1", {}, T.rewards.title), place];
}
