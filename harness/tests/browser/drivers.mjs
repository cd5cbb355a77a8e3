// A driver: signs in, adds a vehicle, sends two photos, claims the reward, sees it paid, and ends another session.

import { utimesSync, copyFileSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, DESK, gateway, look, mailed, PHONE, photo, signIn, walk } from "./steps.mjs";

const NORA = "Nora, who is new";

// A sample photo, taken some days ago as its file says.
function taken(name, daysAgo) {
  const file = join(mkdtempSync(join(tmpdir(), "milestream-photo-")), name);
  copyFileSync(photo(name), file);
  const at = new Date(Date.now() - daysAgo * 86_400_000);
  utimesSync(file, at, at);
  return file;
}

async function sendPhoto(page, file) {
  await page.attach("#photo", file);
  await page.press("Send photo");
  await page.shows("Your photo is on its way.");
}

// A wallet as VeWorld puts it into a page; its owner refuses to sign.
const REFUSING = `window.vechain = { newConnexSigner: (genesis) => ({ signCert: async ({ purpose }) => {
  window.asked = { genesis, purpose };
  throw new Error("You have refused to sign.");
} }) }`;

await walk(async (person) => {
  const owner = await person(DESK);
  await owner.send("Page.addScriptToEvaluateOnNewDocument", { source: REFUSING });
  await owner.open(`${gateway}/`);
  await owner.shows("It costs nothing and moves nothing.");
  await look(owner, "sign-in-veworld");
  await owner.press("Sign in with VeWorld");
  await owner.shows("You have refused to sign.");
  const { network } = await (await fetch(`${gateway}/v1/about`)).json();
  assert.deepEqual(await owner.value("window.asked"), { genesis: network.genesis_id, purpose: "identification" });

  const page = await person(PHONE);
  await page.open(`${gateway}/`);
  await page.shows("Sample drivers");
  await look(page, "sign-in");
  await page.press(`Sign in as ${NORA}`);
  await page.shows("Add your vehicle first");
  await look(page, "photos-new-driver");

  // Rewards are to wait until they are claimed.
  await page.press("Account");
  await page.shows("Pay rewards without my claiming them");
  await page.press("Pay rewards without my claiming them\nIt holds for photos that you send from then on.");
  await page.type("A month", "250");
  await page.press("Save", "[aria-labelledby=of-preferences]");
  await page.shows("Saved.");

  // The address is proven by the code that is sent to it.
  await page.type("E-mail", "nora@example.org");
  await page.press("Save", "[aria-labelledby=of-profile]");
  await page.shows("This address is not proven yet");
  await page.press("Send me a code");
  await page.shows("A code is on its way to you.");
  const code = await mailed(/^Your code: ([0-9]{6})$/m);
  await page.type("Code", code === "000000" ? "000001" : "000000");
  await page.press("Prove this address");
  await page.shows("The code is not the one that was sent");
  await page.type("Code", code);
  await look(page, "account-code");
  await page.press("Prove this address");
  await page.shows("This address is proven.");

  // Told by mail, and by a webhook to where none may go; its secret is shown once.
  const [byMail, byHook] = ["first", "last"].map((which) => `[aria-labelledby=of-notices] fieldset:${which}-of-type`);
  await page.press("Send me e-mails, to the proven address of my profile", byMail);
  await page.press("A photo is decided", byMail);
  await page.press("Send webhooks", byHook);
  await page.type("Address of the webhook", "https://localhost:1/hook");
  await page.press("A photo is decided", byHook);
  await page.press("Save", "[aria-labelledby=of-notices]");
  await page.shows("Saved.");
  await page.press("New secret");
  await page.shows("whsec_");
  await look(page, "webhook-secret");
  await page.press("I have kept it");

  await page.press("Vehicles");
  await page.shows("No vehicles yet");
  await look(page, "vehicles-none");
  await page.press("Add vehicle", "main");
  await page.type("Name", "Blue van");
  await look(page, "vehicle-add");
  await page.press("Add vehicle", "dialog");
  await page.shows("Blue van");
  await look(page, "vehicles");
  await page.press("Hand over");
  await page.type("Their wallet", `0x${"1".repeat(40)}`);
  await look(page, "vehicle-offer");
  await page.press("Hand over", "dialog");
  await page.shows("Offered to 0x1111…1111");
  await look(page, "vehicles-offered");
  await page.press("Take back");
  await page.until(`!document.body.innerText.includes("Changing hands")`, "the offer to be taken back");

  await page.press("Photos");
  await page.shows("Choose a photo");
  await page.attach("#photo", taken("drum-1.jpg", 9));
  await page.shows("Send photo");
  await look(page, "photo-chosen");
  await page.press("Send photo");
  await page.shows("Starting point");
  await sendPhoto(page, taken("drum-2.jpg", 2));
  await page.shows("Ready to claim");
  await look(page, "photos");

  // 333 km, and 5 % more for a proven address.
  await page.press("Rewards");
  await page.shows("3.4965 B3TR");
  await look(page, "rewards-to-claim");
  await page.press("Claim");
  await page.shows("Claimed. The payment follows shortly.");
  await page.press("Photos");
  // Live, without loading the page again.
  await page.shows("Paid");
  await look(page, "photos-paid");
  await page.pressFound(`document.querySelector("a.row")`, "the photo that was paid");
  await page.until(`document.querySelector("figure.photo img")?.naturalWidth > 0`, "the photo itself");
  await page.shows("Transaction");
  await look(page, "photo-paid");
  await page.press("Rewards");
  await page.shows("Earned so far");
  await look(page, "rewards");

  // A photo that is turned down says why.
  await page.press("Photos");
  await page.shows("Choose a photo");
  await sendPhoto(page, taken("blurred.jpg", 1));
  await page.shows("Blurred");
  await page.pressFound(`document.querySelector("a.row")`, "the photo that was turned down");
  await page.shows("hold the phone still");
  await look(page, "photo-turned-down");

  // The driver says why a person should look at it; one of the reviewers sees that.
  await page.press("Ask for a person to look");
  await page.type("What should they know? (optional)", "The number is sharp, only the dial is not.");
  await look(page, "appeal");
  await page.press("Send", "dialog");
  await page.shows("A person will look again");
  await page.shows("You said: The number is sharp");
  await look(page, "photo-appealed");

  // What is no photo is refused before it is sent, whatever its name says.
  await page.press("Photos");
  await page.shows("Choose a photo");
  await page.attach("#photo", photo("not-a-photo.jpg"));
  await page.shows("That is no photo");
  await look(page, "photo-refused");

  // Another device, whose session the first one ends.
  const other = await person(DESK);
  await signIn(other, NORA);
  await page.press("Account");
  await page.shows("End session");
  await page.shows("unreachable: its address is not public");
  await look(page, "account");

  // What was told: by mail it has come, by webhook it waits; the webhook is sent again and removed.
  await mailed(/^Subject: (Your photo is decided)/m);
  await page.shows("Delivered");
  await page.press("Send now", "[aria-labelledby=of-told]");
  await page.shows("It is sent in a moment.");
  await page.press("Remove webhook");
  await page.shows("The webhook is removed.");
  await page.until(`!document.body.innerText.includes("Remove webhook")`, "the webhook to be gone");
  await page.press("End session");
  await page.shows("The session has ended.");
  await other.press("Rewards");
  await other.shows("Your session has ended. Please sign in again.");

  // What is kept about the person: taken along, and to be erased, which is taken back.
  await page.press("Download my data");
  await page.shows("The file is complete.");
  await page.press("Delete my account");
  await page.shows("Until then you can change your mind.");
  await look(page, "account-delete");
  await page.press("Delete my account", "dialog");
  await page.shows("Your account will be deleted on");
  await look(page, "account-to-be-deleted");
  await page.press("Keep my account");
  await page.shows("Your account stays.");

  // Another wallet, which rewards go to from tomorrow on, or not after all; one of somebody else is refused.
  await page.press("Add wallet");
  await page.press("Rita, a reviewer", "dialog");
  await page.shows("The wallet is another account's.");
  await look(page, "wallet-add");
  await page.press("Ben", "dialog");
  await page.press("Pay to this one");
  await look(page, "account-wallet-pay");
  await page.press("Pay to this one", "dialog");
  await page.until(`document.querySelector("[aria-labelledby=of-wallets] li").innerText.includes("Rewards go here from")`, "the newest wallet to be the one from tomorrow on");
  await look(page, "account-wallets");
  await page.press("Take back");
  await page.until(`!document.querySelector("[aria-labelledby=of-wallets] li").innerText.includes("Rewards go here from")`, "the wallet before to stay");

  // Without a network the page says so, and goes on by itself.
  await page.send("Network.emulateNetworkConditions", { offline: true, latency: 0, downloadThroughput: 0, uploadThroughput: 0 });
  await page.press("Rewards");
  await page.shows("You are offline.");
  await page.shows("Try again");
  await look(page, "offline");
  await page.send("Network.emulateNetworkConditions", { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await page.press("Try again");
  await page.shows("Earned so far");

  // By the keyboard alone: the first key leads past the navigation.
  await page.open(`${gateway}/?keyboard#/vehicles`);
  await page.shows("Blue van");
  await page.key("Tab", { number: 9 });
  assert.equal(await page.value("document.activeElement.innerText"), "Skip to the content");

  await page.press("Sign out");
  await page.shows("You are signed out.");
  assert.equal(await page.value(`localStorage.getItem("milestream.session")`), null);
  // What the phone is known by is the phone's, whoever uses it next.
  assert.match(await page.value(`localStorage.getItem("milestream.device")`), /^[0-9a-f]{32}$/);
});
