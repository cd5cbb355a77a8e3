// The drivers' page: who is signed in, and which view is shown.

import { accountView, applyTheme } from "./account.js";
import { all, call, forget, get, onEnd, open, session } from "./api.js";
import { broken, el, hush, loading, notify } from "./dom.js";
import { photosView, photoView } from "./photos.js";
import { rewardsView, setAutomatic } from "./rewards.js";
import { signInView } from "./sign_in.js";
import { T } from "./texts.js";
import { vehiclesView } from "./vehicles.js";

const by = (id) => document.getElementById(id);

// What every view knows: of the gateway, of the account, and which vehicle a photo was sent for before the tables say so.
const app = { about: null, me: null, vehicles: [], sentFor: new Map() };

const VIEWS = [
  [/^#\/photos\/([0-9a-f-]{36})$/, photoView, "photos"],
  [/^#\/rewards$/, rewardsView, "rewards"],
  [/^#\/vehicles$/, vehiclesView, "vehicles"],
  [/^#\/account$/, accountView, "account"],
  [/^/, photosView, "photos"],
];
const PLACES = { photos: "#/", rewards: "#/rewards", vehicles: "#/vehicles", account: "#/account" };

let shown = new AbortController();

function show(parts, title) {
  by("main").replaceChildren(...[parts].flat());
  document.title = title ? `${title} · ${T.product}` : T.product;
}

function navigation(current) {
  const reviews = ["reviewer", "operator"].includes(app.me?.role) ? [el("a", { href: "/review" }, T.review)] : [];
  by("nav").replaceChildren(
    ...Object.entries(PLACES).map(([name, href]) => el("a", { href, class: name, "aria-current": name === current ? "page" : undefined }, T.nav[name])),
    ...reviews,
  );
  by("nav").hidden = by("sign-out").hidden = current === null;
  document.body.classList.toggle("signed-in", current !== null);
}

// Shows the view of the address. `moves` is false where the page is opened: then the focus stays where the browser has it.
function route(moves = true) {
  if (!session()) return welcome();
  shown.abort();
  shown = new AbortController();
  const [pattern, view, name] = VIEWS.find(([pattern]) => pattern.test(location.hash));
  navigation(name);
  show(view(app, shown.signal, location.hash.match(pattern)[1]), T.nav[name]);
  window.scrollTo(0, 0);
  if (moves) by("main").focus({ preventScroll: true });
}

function welcome() {
  shown.abort();
  app.me = null;
  navigation(null);
  show(signInView(app.about, enter));
}

async function enter() {
  show(loading());
  const [me, vehicles, preferences] = await Promise.all([get("/v1/me"), all("/v1/vehicles"), get("/v1/preferences")]);
  Object.assign(app, { me, vehicles });
  setAutomatic(preferences.reward_preferences.auto_claim);
  applyTheme(preferences.dashboard_settings.theme);
  route(false);
}

async function signOut() {
  // The session ends here in any case, and there as soon as the gateway is reached.
  await call("POST", "/v1/auth/logout").catch(() => {});
  forget();
  location.hash = "#/";
  welcome();
  notify(T.signedOut);
}

async function start() {
  show(loading());
  try {
    app.about = await open("GET", "/v1/about");
    if (session()) await enter();
    else welcome();
  } catch (error) {
    if (session() || !app.about) show(broken(error, start));
    else welcome();
  }
}

function connection() {
  by("offline").hidden = navigator.onLine;
  by("offline").textContent = navigator.onLine ? "" : T.offline;
}

onEnd(() => {
  if (!app.about) return;
  welcome();
  notify(T.sessionEnded, true);
});
applyTheme(localStorage.getItem("milestream.theme") ?? "system");
by("sign-out").textContent = T.signOut;
by("sign-out").addEventListener("click", signOut);
window.addEventListener("hashchange", () => {
  hush();
  if (app.about) route();
});
window.addEventListener("online", connection);
window.addEventListener("offline", connection);
// Signed in or out in another tab.
window.addEventListener("storage", ({ key, oldValue, newValue }) => {
  if (key === "milestream.session" && Boolean(oldValue) !== Boolean(newValue)) start();
});
connection();
start();
