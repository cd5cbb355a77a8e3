// Reviewers: one approves with a corrected reading, one turns a photo down, two see the same one, and a second person is asked.

import { readFileSync } from "node:fs";
import { assert, DESK, gateway, look, photo, walk } from "./steps.mjs";

async function ask(method, path, { token, json, form } = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const body = form ?? (json === undefined ? undefined : JSON.stringify(json));
  const response = await fetch(`${gateway}${path}`, { method, headers, body });
  const document = await response.json();
  assert.ok(response.ok, `${method} ${path}: ${JSON.stringify(document)}`);
  return document;
}

// Signs in as a sample driver, by the routes that a page uses.
async function driver(name) {
  const { development_wallets } = await ask("GET", "/v1/about");
  const { address } = development_wallets.find((wallet) => wallet.name === name);
  const { challenge_id } = await ask("POST", "/v1/auth/challenge", { json: { address } });
  const { signature } = await ask("POST", "/v1/auth/development-signature", { json: { challenge_id } });
  const { access_token } = await ask("POST", "/v1/auth/login", { json: { method: "eip712", challenge_id, signature } });
  return access_token;
}

async function vehicle(token, name) {
  return (await ask("POST", "/v1/vehicles", { token, json: { name, unit: null } })).vehicle_id;
}

async function settled(token, id, verdict) {
  for (let looks = 0; looks < 300; looks += 1) {
    const upload = await ask("GET", `/v1/uploads/${id}`, { token });
    if (upload.verdict === verdict) return upload;
    assert.ok(upload.verdict === null || upload.verdict === "review", `${upload.verdict}: ${upload.reason}`);
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  throw new Error(`the upload ${id} was not ${verdict} in time`);
}

async function send(token, { file, of, claimed, unit, days }) {
  const form = new FormData();
  form.set("vehicle_id", of);
  form.set("unit", unit);
  if (claimed) form.set("claimed_mileage", claimed);
  form.set("captured_at", new Date(Date.now() - days * 86_400_000).toISOString());
  form.set("photo", new Blob([readFileSync(photo(file))], { type: "image/jpeg" }), file);
  return (await ask("POST", "/v1/uploads", { token, form })).upload_id;
}

const enter = (page) => page.key("Enter", { text: "\r", number: 13 });
const letter = (page, key) => page.key(key, { text: key, number: key.toUpperCase().charCodeAt(0) });

// The reviewer's page with a photo on it.
async function desk(page) {
  await page.open(`${gateway}/review?${Math.random()}`);
  await page.until(`!document.getElementById("desk").hidden`, "a photo to review");
}

await walk(async (person, browser) => {
  const ada = await driver("Ada");
  const rita = await person(DESK);
  await rita.open(`${gateway}/review`);
  await rita.shows("Sign in with a wallet");
  await look(rita, "review-sign-in");
  await rita.open(`${gateway}/`);
  await rita.press("Sign in as Rita, a reviewer");
  await rita.press("Reviews");
  // What the driver before has appealed: which rule has turned it down, and what the driver says.
  await rita.until(`!document.getElementById("desk").hidden`, "the photo that was appealed");
  await rita.shows("The driver appeals. Turned down by the rule blurred");
  await rita.shows("only the dial is not");
  await look(rita, "review-appeal");
  await letter(rita, "r");
  await rita.key("4", { text: "4", number: 52 });
  await rita.shows("Nothing waits for you");
  await look(rita, "review-nothing");

  // What the driver typed differs from the photo: the reviewer types what it shows.
  const first = await send(ada, { file: "screen-1.jpg", of: await vehicle(ada, "Old pickup"), claimed: "54210", unit: "miles", days: 4 });
  await settled(ada, first, "review");
  await desk(rita);
  await look(rita, "review-photo");
  assert.equal(await rita.value(`document.activeElement.id`), "mileage");
  await rita.value(`document.getElementById("mileage").select()`);
  await rita.send("Input.insertText", { text: "45210.5" });
  await enter(rita);
  await rita.shows("1 decided");
  const approved = await settled(ada, first, "verified");
  assert.equal(approved.reading, "45210.50");

  // Turned down with a reason, by two keys.
  const second = await send(ada, { file: "screen-rotated.jpg", of: await vehicle(ada, "Hatchback"), claimed: "270318", unit: "km", days: 3 });
  await settled(ada, second, "review");
  await desk(rita);
  await letter(rita, "r");
  await rita.shows("edited_photo");
  await look(rita, "review-reasons");
  await rita.key("8", { text: "8", number: 56 });
  await rita.shows("1 decided");
  assert.equal((await settled(ada, second, "rejected")).reason, "edited_photo");

  // Two windows with the same photo: what one has decided the other cannot decide otherwise.
  const third = await send(ada, { file: "mismatch.jpg", of: await vehicle(ada, "Estate"), claimed: "79630", unit: "km", days: 2 });
  await settled(ada, third, "review");
  await desk(rita);
  const window = await browser.page(DESK, rita.context);
  await desk(window);
  await letter(rita, "r");
  await rita.key("1", { text: "1", number: 49 });
  await rita.shows("1 decided");
  await enter(window);
  await window.shows("decided already");
  await look(window, "review-conflict");
  assert.equal((await settled(ada, third, "rejected")).reason, "review_rejected");

  // A long way since the last photo: another person has to see the same.
  // Of Ben, since a photo that a new account had turned down for an edit sends what comes after it to a person.
  const ben = await driver("Ben");
  const van = await vehicle(ben, "Van");
  await settled(ben, await send(ben, { file: "seven-segment-1.jpg", of: van, unit: "km", days: 6 }), "verified");
  const fourth = await send(ben, { file: "seven-segment-2.jpg", of: van, claimed: "188655", unit: "km", days: 3 });
  await settled(ben, fourth, "review");
  await desk(rita);
  await rita.shows("one person");
  await enter(rita);
  await rita.shows("A second person is asked.");
  await rita.shows("Nothing waits for you");
  const sven = await person(DESK);
  await sven.open(`${gateway}/`);
  await sven.press("Sign in as Sven, a reviewer");
  await sven.shows("New photo");
  await desk(sven);
  await sven.shows("a second person");
  await look(sven, "review-second-person");
  await enter(sven);
  await sven.shows("1 decided");
  const paid = await settled(ben, fourth, "verified");
  assert.equal(paid.distance_km, "445.00");
});
