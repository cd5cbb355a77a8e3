// A headless Chromium, driven over its debugging pipe (Chrome DevTools Protocol): no library, and no port.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

// How long something on a page may take, ms: a photo is read in seconds, and paid in some more.
const LIMIT = 90_000;
const LOOK_MS = 150;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Browser {
  #process;
  #folder;
  #last = 0;
  #waiting = new Map();
  #pages = new Map();
  #rest = "";

  static async start(program) {
    const browser = new Browser();
    browser.#folder = mkdtempSync(join(tmpdir(), "milestream-browser-"));
    const flags = [
      "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
      "--no-first-run", "--disable-background-networking", "--disable-extensions", "--hide-scrollbars",
      `--user-data-dir=${browser.#folder}`,
    ];
    // Its own words are kept apart: they matter where it does not start.
    browser.#process = spawn(program, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    browser.#process.once("exit", (status) => {
      for (const { reject } of browser.#waiting.values()) reject(new Error(`the browser has ended (${status})`));
    });
    browser.#process.stdio[4].setEncoding("utf8").on("data", (text) => browser.#read(text));
    await browser.send("Target.setDiscoverTargets", { discover: true });
    return browser;
  }

  #read(text) {
    const parts = (this.#rest + text).split("\0");
    this.#rest = parts.pop();
    for (const part of parts) {
      const { id, result, error, method, params, sessionId } = JSON.parse(part);
      if (id) {
        const { resolve, reject } = this.#waiting.get(id);
        this.#waiting.delete(id);
        if (error) reject(new Error(error.message));
        else resolve(result);
      } else this.#pages.get(sessionId)?.heard(method, params);
    }
  }

  send(method, params = {}, sessionId) {
    const id = (this.#last += 1);
    const sent = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return sent;
  }

  // A page in a store of its own: what another person keeps in their browser is not there.
  async person(size, scheme = "light") {
    const { browserContextId } = await this.send("Target.createBrowserContext");
    const page = await this.page(size, browserContextId);
    await page.scheme(scheme);
    return page;
  }

  async page(size, browserContextId) {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId, browserContextId);
    this.#pages.set(sessionId, page);
    for (const domain of ["Page", "Runtime", "DOM", "Log", "Network"]) await page.send(`${domain}.enable`);
    await page.resize(size);
    return page;
  }

  async stop() {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    await this.send("Browser.close").catch(() => {});
    await ended;
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

export const PHONE = { width: 390, height: 844, deviceScaleFactor: 2, mobile: true };
export const DESK = { width: 1280, height: 900, deviceScaleFactor: 1, mobile: false };

class Page {
  // What went wrong on the page: errors of scripts, refusals by the content security policy.
  faults = [];
  // Where the page asked for anything.
  asked = new Set();

  constructor(browser, session, context) {
    this.browser = browser;
    this.session = session;
    this.context = context;
  }

  heard(method, params) {
    if (method === "Runtime.exceptionThrown") this.faults.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    // A response that a page asks for in vain, such as 401, is logged as well: those are what a test looks at itself.
    if (method === "Log.entryAdded" && params.entry.level === "error" && params.entry.source !== "network") this.faults.push(params.entry.text);
    if (method === "Network.requestWillBeSent") this.asked.add(params.request.url);
  }

  send(method, params) {
    return this.browser.send(method, params, this.session);
  }

  async resize(size) {
    this.size = size;
    const { width, height, deviceScaleFactor, mobile } = size;
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor, mobile });
    await this.send("Emulation.setTouchEmulationEnabled", { enabled: mobile });
  }

  scheme(value) {
    return this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] });
  }

  async open(url) {
    await this.send("Page.navigate", { url });
    await this.until(`document.readyState === "complete"`, `${url} to load`);
  }

  // The value of an expression on the page; awaited where it is a promise.
  async value(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true, userGesture: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async until(expression, what = expression, limit = LIMIT) {
    const end = Date.now() + limit;
    for (;;) {
      const value = await this.value(expression).catch(() => undefined);
      if (value) return value;
      if (Date.now() > end) throw new Error(`waited in vain for ${what}; the page shows:\n${await this.text()}`);
      await sleep(LOOK_MS);
    }
  }

  text() {
    return this.value("document.body.innerText");
  }

  // Waits until the page shows a text.
  shows(text, limit) {
    return this.until(`document.body.innerText.includes(${JSON.stringify(text)})`, `"${text}"`, limit);
  }

  // Presses what has a text, as a finger or a mouse does: where it stands, so that nothing may lie over it.
  async press(text, within = "body") {
    const find = `[...document.querySelectorAll(${JSON.stringify(`${within} :is(button, a, summary, label)`)})]
      .find((one) => one.innerText.trim() === ${JSON.stringify(text)} && one.checkVisibility())`;
    await this.pressFound(find, `"${text}" to press`);
  }

  async pressFound(find, what) {
    await this.until(`Boolean(${find})`, what);
    const { x, y } = await this.value(`(() => { const one = ${find}; one.scrollIntoView({ block: "center", behavior: "instant" });
      const { x, y, width, height } = one.getBoundingClientRect(); return { x: x + width / 2, y: y + height / 2 }; })()`);
    for (const type of ["mousePressed", "mouseReleased"]) {
      await this.send("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
    }
  }

  // Types into the field that a label names.
  async type(label, text) {
    await this.value(`(() => {
      const label = [...document.querySelectorAll("label")].find((one) => one.innerText.trim() === ${JSON.stringify(label)} && one.checkVisibility());
      const field = label.control; field.focus(); field.select?.(); })()`);
    await this.send("Input.insertText", { text });
  }

  async key(key, { code, text, number } = {}) {
    const event = { key, code: code ?? key, text, windowsVirtualKeyCode: number };
    await this.send("Input.dispatchKeyEvent", { type: text ? "keyDown" : "rawKeyDown", ...event });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...event });
  }

  async attach(selector, file) {
    const { root } = await this.send("DOM.getDocument");
    const { nodeId } = await this.send("DOM.querySelector", { nodeId: root.nodeId, selector });
    await this.send("DOM.setFileInputFiles", { files: [file], nodeId });
  }

  // The whole page as a picture.
  async picture(file) {
    const size = this.size;
    // In a window as high as the page what is fixed to its edges stands where it belongs.
    const height = Math.max(size.height, await this.value("document.documentElement.scrollHeight"));
    await this.resize({ ...size, height });
    await sleep(LOOK_MS);
    const { data } = await this.send("Page.captureScreenshot", { format: "png" });
    await this.resize(size);
    writeFileSync(file, Buffer.from(data, "base64"));
  }
}
