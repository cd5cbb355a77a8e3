// What the steps of every page share: who acts, pictures, and the search for barriers.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Browser, DESK, PHONE } from "./browser.mjs";

export { assert, DESK, PHONE };

const { BROWSER, GATEWAY, AXE, MAILS, PICTURES, PHOTOS } = process.env;
export const gateway = GATEWAY;
export const photo = (name) => join(PHOTOS, name);

// The part of a mail that a pattern finds, once one has come.
export async function mailed(pattern) {
  for (let looks = 0; looks < 300; looks += 1) {
    const found = readFileSync(MAILS, "utf8").match(pattern);
    if (found) return found[1];
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`no mail has come: ${pattern}`);
}

const axe = readFileSync(AXE, "utf8");
// Levels A and AA of WCAG 2.0, 2.1 and 2.2.
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
let looked = 0;
let pictures = 0;

// Holds that axe finds no barrier on the page as it stands.
async function search(page, name) {
  // Into the page's own world, past its content security policy.
  if (!(await page.value("Boolean(window.axe)"))) await page.value(`${axe}; true`);
  // What moves is looked at when it stands still.
  await page.value("document.getAnimations().forEach((one) => { try { one.finish(); } catch { one.cancel(); } })");
  const found = await page.value(`axe.run({ runOnly: ${JSON.stringify(RULES)}, resultTypes: ["violations"] }).then(({ violations, passes }) =>
    ({ passes: passes.length, violations: violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map(({ target, failureSummary }) => target + ": " + failureSummary) })) }))`);
  assert.deepEqual(found.violations, [], `${name}: ${JSON.stringify(found.violations, null, 1)}`);
  assert.ok(found.passes > 5, `${name}: axe has looked at nothing`);
  looked += 1;
}

// The page as it stands: searched for barriers and pictured, on a phone and on a desk, light and dark.
export async function look(page, name, sizes = { phone: PHONE, desk: DESK }) {
  const held = page.size;
  for (const [size, measures] of Object.entries(sizes)) {
    await page.resize(measures);
    for (const scheme of ["light", "dark"]) {
      await page.scheme(scheme);
      await search(page, `${name}, ${size}, ${scheme}`);
      await page.picture(join(PICTURES, `${name}-${size}-${scheme}.png`));
      pictures += 1;
      const wide = await page.value("document.documentElement.scrollWidth - document.documentElement.clientWidth");
      assert.equal(wide, 0, `${name}, ${size}: the page is ${wide} pixels wider than the window`);
    }
  }
  await page.scheme("light");
  await page.resize(held);
}

// One click on the first page.
export async function signIn(page, name) {
  await page.open(`${gateway}/`);
  await page.press(`Sign in as ${name}`);
  await page.shows("New photo");
}

// Runs the steps; holds at the end that no script failed, and that nobody but the gateway was asked for anything.
export async function walk(steps) {
  const browser = await Browser.start(BROWSER);
  const people = [];
  const person = async (size) => {
    const page = await browser.person(size);
    people.push(page);
    return page;
  };
  try {
    await steps(person, browser);
    for (const page of people) {
      assert.deepEqual(page.faults, []);
      const others = [...page.asked].filter((url) => !url.startsWith(gateway) && !url.startsWith(`blob:${gateway}`));
      assert.deepEqual(others, []);
    }
  } finally {
    await browser.stop();
  }
  console.log(`${looked} views searched for barriers, ${pictures} pictures in ${PICTURES}`);
}
