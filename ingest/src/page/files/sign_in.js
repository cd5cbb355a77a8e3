// Wallets: the one of this browser (VeWorld), or those that a development system signs for.

import { keep, open, send } from "./api.js";
import { button, el } from "./dom.js";
import { T } from "./texts.js";

const LAST = "milestream.wallet";

// A signature of VeWorld. `signer` is asked to be the one that signs, where it is known.
async function certificate(about, content, signer) {
  const wallet = window.vechain.newConnexSigner(about.network.genesis_id);
  const message = { purpose: "identification", payload: { type: "text", content } };
  const { annex, signature } = await wallet.signCert(message, signer ? { signer } : {});
  return { ...message, ...annex, signature };
}

// The proof that a wallet is one's own. `challenge` asks for what is to be signed.
async function proveVeWorld(about, challenge, isKnown) {
  // Whose wallet it is, the wallet says by signing; after the first time it is remembered.
  const known = isKnown ? localStorage.getItem(LAST) : null;
  const address = known ?? (await certificate(about, T.signIn.connect)).signer;
  const asked = await challenge(address);
  const signed = await certificate(about, asked.text, address);
  localStorage.setItem(LAST, signed.signer);
  return { method: "certificate", challenge_id: asked.challenge_id, certificate: signed };
}

async function proveDevelopment(wallet, challenge) {
  const { challenge_id } = await challenge(wallet.address);
  const { signature } = await open("POST", "/v1/auth/development-signature", { json: { challenge_id } });
  return { method: "eip712", challenge_id, signature };
}

const forSignIn = (address) => open("POST", "/v1/auth/challenge", { json: { address } });
const forLink = (address) => send("POST", "/v1/wallets/challenge", { address });

// Buttons for every wallet that there is; `use` gets a function that proves it.
function choices(about, challenge, use, isKnown) {
  const found = [];
  if (window.vechain && about.network) {
    const forgetOnRefusal = async () => {
      try {
        return await proveVeWorld(about, challenge, isKnown);
      } catch (error) {
        localStorage.removeItem(LAST);
        throw error;
      }
    };
    found.push(button(T.signIn.wallet, () => use(forgetOnRefusal), "primary wide"));
  }
  const development = about.development_wallets.map((wallet) =>
    button(T.signIn.as(wallet.name), () => use(() => proveDevelopment(wallet, challenge)), "wide"),
  );
  return { found, development };
}

// The choices in a dialog: what goes wrong is told there, where it is not hidden behind it.
export function linkChoices(about, linked, failed) {
  const use = async (prove) => {
    try {
      await linked(await send("POST", "/v1/wallets", await prove()));
    } catch (error) {
      failed(error);
    }
  };
  const { found, development } = choices(about, forLink, use, false);
  development.forEach((one, at) => (one.textContent = about.development_wallets[at].name));
  return [...found, ...development];
}

export function signInView(about, done) {
  const use = async (prove) => {
    keep(await open("POST", "/v1/auth/login", { json: await prove() }));
    await done();
  };
  const { found, development } = choices(about, forSignIn, use, true);
  const card = el("section", { class: "card sign-in", "aria-labelledby": "sign-in-title" });
  card.append(el("h2", { id: "sign-in-title" }, T.signIn.none));
  if (!about.network) card.append(el("p", {}, T.signIn.off));
  else if (found.length > 0) card.append(...found, el("p", { class: "hint" }, T.signIn.why));
  else {
    card.append(el("p", {}, T.signIn.noneText));
    if (development.length === 0) {
      card.append(el("a", { class: "button primary wide", href: "https://www.veworld.net", rel: "noopener noreferrer" }, T.signIn.get));
    }
  }
  if (development.length > 0) {
    card.append(el("div", { class: "development" },
      el("h3", {}, T.signIn.development), el("p", { class: "hint" }, T.signIn.developmentText), development));
  }
  const steps = el("ol", { class: "how" }, T.signIn.steps.map(([what, how]) => el("li", {}, el("strong", {}, what), ` ${how}`)));
  return el("div", { class: "welcome" },
    el("div", {}, el("h1", {}, T.signIn.title), el("p", { class: "lead" }, T.signIn.lead), steps), card);
}
