// The account: profile, wallets, sessions, preferences, and what is kept about somebody.

import { all, download, get, send } from "./api.js";
import { ask, badge, button, el, field, fill, notify, option, tick } from "./dom.js";
import { deliveries, noticesForm } from "./notices.js";
import { setAutomatic } from "./rewards.js";
import { linkChoices } from "./sign_in.js";
import { T } from "./texts.js";

const A = T.account;

const section = (id, title, more, ...parts) =>
  el("section", { class: "card", "aria-labelledby": id }, el("div", { class: "title" }, el("h2", { id }, title), more), parts);

// A form that saves with a button of its own.
function saving(parts, save, text = T.save, done = T.saved) {
  const submit = el("button", { type: "submit", class: "primary" }, text);
  const form = el("form", {}, parts, el("div", { class: "actions start" }, submit));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (submit.getAttribute("aria-disabled") === "true") return;
    submit.setAttribute("aria-disabled", "true");
    try {
      await save();
      notify(done);
    } catch (error) {
      notify(T.problem(error), true);
    } finally {
      submit.removeAttribute("aria-disabled");
    }
  });
  return form;
}

function profile(me) {
  const name = el("input", { value: me.username ?? "", minLength: 3, maxLength: 100, required: true, autocomplete: "nickname" });
  const email = el("input", { type: "email", value: me.email ?? "", maxLength: 254, autocomplete: "email" });
  const proof = el("div", { class: "stack" });
  const show = (one) => proof.replaceChildren(...emailProof(one, show));
  show(me);
  const saved = saving([field(A.name, name), field(A.email, email, A.emailHint)], async () =>
    show(await send("PATCH", "/v1/me", { username: name.value.trim(), email: email.value.trim() || null })));
  return [saved, proof];
}

// Whether the address is proven, and proving it by the code that is sent to it.
function emailProof(me, show) {
  if (!me.email) return [];
  if (me.email_verified) return [el("p", {}, badge({ text: A.emailProven, tone: "good" }))];
  const code = el("input", { inputMode: "numeric", autocomplete: "one-time-code", pattern: "[0-9]{6}", maxLength: 6, required: true });
  const form = saving([field(A.code, code, A.codeHint(me.email))], async () =>
    show(await send("POST", "/v1/me/email/proof", { code: code.value.trim() })), A.prove, A.emailProven);
  form.hidden = true;
  const ask = button(A.sendCode, async () => {
    await send("POST", "/v1/me/email/code");
    form.hidden = false;
    code.focus();
    notify(A.codeSent);
  });
  return [el("p", { class: "hint" }, A.emailUnproven), el("div", { class: "actions start" }, ask), form];
}

function wallets(app, place, changed) {
  return fill(place, async () => {
    const items = await all("/v1/wallets");
    const row = (wallet) => {
      const path = `/v1/wallets/${wallet.wallet_id}`;
      const act = async (method, body) => {
        await send(method, path, body);
        await changed();
      };
      const sub = [
        wallet.balance && A.balance(T.b3tr(wallet.balance)),
        wallet.primary_from && A.primaryFrom(T.when(wallet.primary_from)),
        !wallet.verified_at && A.unproven,
      ].filter(Boolean).join(" · ");
      const pay = () => ask(A.makePrimaryTitle, el("p", {}, A.makePrimaryText), A.makePrimary, () => act("PATCH", { is_primary: true }));
      return el("li", {}, el("div", { class: "row" },
        el("span", { class: "row-main" }, el("code", { class: "row-title", title: wallet.address }, T.short(wallet.address)), sub ? el("span", { class: "row-sub" }, sub) : null),
        el("span", { class: "row-side actions" },
          wallet.is_primary ? badge({ text: A.primary, tone: "good" }) : [
            wallet.primary_from ? button(A.notPrimary, () => act("PATCH", { is_primary: false })) : null,
            wallet.verified_at && !wallet.primary_from ? button(A.makePrimary, pay) : null,
            button(A.remove, () => ask(A.removeTitle, el("p", {}, A.removeText), A.remove, () => act("DELETE"), "danger"), "quiet"),
          ])));
    };
    return el("ul", { class: "rows" }, items.map(row));
  });
}

// What a browser says of itself, shortened to what a person knows it by.
function device(agent) {
  if (!agent) return A.unknownDevice;
  const system = [["Android", "Android"], ["iPhone|iPad", "iOS"], ["Windows", "Windows"], ["Mac OS", "macOS"], ["Linux", "Linux"]].find(([mark]) => new RegExp(mark).test(agent))?.[1];
  const browser = [["Edg/", "Edge"], ["Firefox/", "Firefox"], ["HeadlessChrome|Chrome/", "Chrome"], ["Safari/", "Safari"]].find(([mark]) => new RegExp(mark).test(agent))?.[1];
  return [browser, system].filter(Boolean).join(", ") || agent.slice(0, 40);
}

function sessions(place) {
  return fill(place, async () => {
    const items = await all("/v1/sessions");
    items.sort((a, b) => Number(b.current) - Number(a.current));
    const row = (one) => el("li", {}, el("div", { class: "row" },
      el("span", { class: "row-main" },
        el("span", { class: "row-title" }, device(one.user_agent)),
        el("span", { class: "row-sub" }, [one.ip_address, A.sessionSince(T.when(one.created_at))].filter(Boolean).join(" · "))),
      el("span", { class: "row-side" }, one.current ? badge({ text: A.current, tone: "good" }) : button(A.end, async () => {
        await send("DELETE", `/v1/sessions/${one.session_id}`);
        notify(A.ended);
        await sessions(place);
      }))));
    return el("ul", { class: "rows" }, items.map(row));
  });
}

export function applyTheme(theme) {
  localStorage.setItem("milestream.theme", theme);
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

// All preferences are put in at once: what another form of the page has put in before is in `held`.
const put = async (held, wanted) => Object.assign(held, await send("PUT", "/v1/preferences", wanted));

const amount = (value) => el("input", { value: value ?? "", inputMode: "decimal", pattern: "[0-9]+([.][0-9]{1,8})?", maxLength: 20, autocomplete: "off" });

// What is kept of somebody's preferences and has no effect yet is not offered; it stays as it is.
function preferences(held) {
  const { min_claim, personal_limits } = held.reward_preferences;
  const least = amount(min_claim === "0" ? "" : min_claim);
  const limits = Object.keys(A.limits).map((name) => ({ name, input: amount(personal_limits[name]) }));
  const auto = tick(A.autoClaim, held.reward_preferences.auto_claim, A.autoClaimHint);
  const theme = el("select", {}, Object.entries(A.themes).map(([value, text]) => option(value, text, value === held.dashboard_settings.theme)));
  const own = el("fieldset", {}, el("legend", {}, A.ownLimits), el("p", { class: "hint" }, A.ownLimitsHint),
    limits.map(({ name, input }) => field(A.limits[name], input)));
  return saving([auto.row, field(A.minClaim, least, A.minClaimHint), own, field(A.theme, theme)], async () => {
    const wanted = structuredClone(held);
    wanted.reward_preferences.auto_claim = auto.input.checked;
    wanted.reward_preferences.min_claim = least.value.trim() || "0";
    for (const { name, input } of limits) wanted.reward_preferences.personal_limits[name] = input.value.trim() || null;
    wanted.dashboard_settings.theme = theme.value;
    await put(held, wanted);
    setAutomatic(held.reward_preferences.auto_claim);
    applyTheme(held.dashboard_settings.theme);
  });
}

// What is kept: to take along, and to have erased. `me` is the account.
function kept(me, changed) {
  const far = el("p", { class: "hint", role: "status" });
  const take = button(A.export, async () => {
    const { name, blob } = await download("/v1/me/export", (bytes) => (far.textContent = A.exporting(T.bytes(bytes))));
    far.textContent = A.exported;
    const address = URL.createObjectURL(blob);
    el("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  });
  const erase = button(A.erase, () => ask(A.eraseTitle, A.eraseText.map((text) => el("p", {}, text)), A.erase, async () => {
    await send("DELETE", "/v1/me");
    await changed();
  }, "danger"), "quiet");
  const stay = button(A.keep, async () => {
    await send("POST", "/v1/me/keep");
    await changed();
    notify(A.kept);
  }, "primary");
  const due = me.erasure_due_at;
  return [
    el("p", {}, A.dataText),
    due ? el("p", { class: "problem", role: "status" }, A.erasureDue(T.when(due))) : null,
    el("div", { class: "actions start" }, take, due ? stay : erase),
    far,
  ].filter(Boolean);
}

export function accountView(app, signal) {
  const [ofProfile, ofWallets, ofSessions, ofPreferences, ofNotices, ofTold, ofData] = [0, 1, 2, 3, 4, 5, 6].map(() => el("div", { class: "stack" }));
  const reloadWallets = async () => {
    await wallets(app, ofWallets, reloadWallets);
    notify(T.saved);
  };
  const link = () => {
    const dialog = el("dialog", { "aria-labelledby": "link-title", onclose: () => dialog.remove() });
    const linked = async () => {
      dialog.close();
      await reloadWallets();
    };
    const problem = el("p", { class: "problem", role: "alert", hidden: true });
    const failed = (error) => {
      problem.textContent = T.problem(error);
      problem.hidden = false;
    };
    const found = linkChoices(app.about, linked, failed);
    dialog.append(el("h2", { id: "link-title" }, A.addWallet), el("p", {}, found.length > 0 ? A.addWalletText : T.signIn.noneText), ...found, problem,
      el("div", { class: "actions" }, button(T.cancel, () => dialog.close(), "quiet")));
    document.body.append(dialog);
    dialog.showModal();
  };
  fill(ofProfile, async () => profile(await get("/v1/me", { signal })));
  const showKept = () => fill(ofData, async () => kept(await get("/v1/me", { signal }), showKept));
  showKept();
  wallets(app, ofWallets, reloadWallets);
  sessions(ofSessions);
  // One copy for both forms: asked for once, and again where that went wrong.
  let asked = null;
  const held = () => (asked ??= get("/v1/preferences", { signal }).catch((error) => {
    asked = null;
    throw error;
  }));
  fill(ofPreferences, async () => preferences(await held()));
  const showNotices = () => fill(ofNotices, async () => {
    const known = await held();
    return noticesForm(known, { put: (wanted) => put(known, wanted), form: saving, again: showNotices });
  });
  showNotices();
  deliveries(ofTold, signal);
  return [
    el("h1", {}, A.title),
    el("div", { class: "cards" },
      section("of-wallets", A.wallets, button(A.addWallet, link), ofWallets),
      section("of-sessions", A.sessions, null, ofSessions),
      section("of-profile", A.profile, null, ofProfile),
      section("of-preferences", A.preferences, null, ofPreferences),
      section("of-notices", T.notices.title, null, ofNotices),
      section("of-told", T.notices.told, null, ofTold),
      section("of-data", A.data, null, ofData)),
  ];
}
