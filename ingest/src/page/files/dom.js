// Elements, dialogs and notices. Text becomes text, never markup.

import { T } from "./texts.js";

// An element: properties are set as such, `on…` are listeners, names with a dash and `role` are attributes.
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.includes("-") || key === "role" || key === "for" || key === "list") element.setAttribute(key, value);
    else element[key === "class" ? "className" : key] = value;
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let asked = 0;

// A field with its label; `hint` is read with it.
export function field(label, input, hint) {
  const id = input.id || `field-${(asked += 1)}`;
  input.id = id;
  const parts = [el("label", { for: id }, label), input];
  if (hint) {
    input.setAttribute("aria-describedby", `${id}-hint`);
    parts.push(el("p", { class: "hint", id: `${id}-hint` }, hint));
  }
  return el("div", { class: "field" }, parts);
}

export const option = (value, text, selected) => el("option", { value, selected }, text);

// A box that is ticked, with its label behind it.
export function tick(label, checked, hint) {
  const input = el("input", { type: "checkbox", checked, id: `field-${(asked += 1)}` });
  const words = el("span", {}, label, hint ? el("span", { class: "hint" }, hint) : null);
  return { input, row: el("label", { class: "tick", for: input.id }, input, words) };
}

let fading = 0;

// Tells something that needs no answer.
export function notify(text, isError = false) {
  const notice = document.getElementById("notice");
  clearTimeout(fading);
  notice.className = isError ? "notice shown error" : "notice shown";
  notice.textContent = text;
  fading = setTimeout(() => notice.classList.remove("shown"), isError ? 8000 : 4000);
}

// Takes the notice away: it was about another view.
export const hush = () => document.getElementById("notice").classList.remove("shown");

// Runs what a button starts: it cannot be started twice, and what goes wrong is told.
export async function busy(button, action) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  button.classList.add("busy");
  try {
    return await action();
  } catch (error) {
    notify(T.problem(error), true);
  } finally {
    button.removeAttribute("aria-disabled");
    button.classList.remove("busy");
  }
}

export function button(text, action, kind = "") {
  const made = el("button", { type: "button", class: kind, onclick: () => busy(made, action) }, text);
  return made;
}

// A dialog with a form. `save` gets called on submit; when it ends well the dialog closes.
export function ask(title, fields, action, save, kind = "primary") {
  const submit = el("button", { type: "submit", class: kind }, action);
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const heading = el("h2", { id: "dialog-title" }, title);
  const form = el("form", { noValidate: false }, heading, fields, problem,
    el("div", { class: "actions" }, el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, T.cancel), submit));
  const dialog = el("dialog", { "aria-labelledby": "dialog-title", onclose: () => dialog.remove() }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (submit.getAttribute("aria-disabled") === "true") return;
    submit.setAttribute("aria-disabled", "true");
    problem.hidden = true;
    try {
      await save();
      dialog.close();
    } catch (error) {
      problem.textContent = T.problem(error);
      problem.hidden = false;
    } finally {
      submit.removeAttribute("aria-disabled");
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

// What stands where something is loaded, where nothing is, and where it went wrong.
export const loading = () => el("div", { class: "loading", role: "status" }, el("span", { class: "hidden" }, T.loading));
export const empty = (title, text, more) => el("div", { class: "empty" }, el("h2", {}, title), el("p", {}, text), more ?? null);
export const broken = (error, again) =>
  el("div", { class: "empty", role: "alert" }, el("p", {}, T.problem(error)), button(T.again, again));

// Fills a place with what comes of a promise.
export async function fill(place, make) {
  place.replaceChildren(loading());
  try {
    place.replaceChildren(...[await make()].flat());
  } catch (error) {
    if (error.name === "AbortError") return;
    place.replaceChildren(broken(error, () => fill(place, make)));
  }
}

export const badge = ({ text, tone }) => el("span", { class: `badge ${tone}` }, text);
