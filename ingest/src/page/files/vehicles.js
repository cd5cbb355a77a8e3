// Vehicles: what somebody drives.

import { all, send } from "./api.js";
import { ask, badge, button, el, empty, field, fill, notify, option } from "./dom.js";
import { T } from "./texts.js";

function fields(vehicle = {}) {
  const name = el("input", { required: true, maxLength: 100, autocomplete: "off", value: vehicle.name ?? "" });
  const kind = el("select", {}, Object.entries(T.vehicles.kinds).map(([value, text]) => option(value, text, value === (vehicle.kind ?? "unknown"))));
  const unit = el("select", {}, Object.entries(T.vehicles.units).map(([value, text]) => option(value, text, value === (vehicle.unit ?? (vehicle.vehicle_id ? "" : "km")))));
  return {
    shown: [field(T.vehicles.name, name, T.vehicles.nameHint), field(T.vehicles.kind, kind), field(T.vehicles.unit, unit)],
    read: () => ({ name: name.value.trim(), kind: kind.value, unit: unit.value || null }),
  };
}

export function addVehicle(changed) {
  const { shown, read } = fields();
  ask(T.vehicles.add, shown, T.vehicles.add, async () => {
    await send("POST", "/v1/vehicles", read());
    await changed();
  });
}

function editVehicle(vehicle, changed) {
  const { shown, read } = fields(vehicle);
  ask(T.vehicles.editTitle, shown, T.save, async () => {
    await send("PATCH", `/v1/vehicles/${vehicle.vehicle_id}`, read());
    await changed();
  });
}

function row(vehicle, changed) {
  const set = async (retired) => {
    await send("PATCH", `/v1/vehicles/${vehicle.vehicle_id}`, { retired });
    await changed();
  };
  const sub = [T.vehicles.kinds[vehicle.kind], T.vehicles.units[vehicle.unit ?? ""], T.vehicles.since(T.day(vehicle.created_at))];
  return el("li", {}, el("div", { class: "row" },
    el("span", { class: "row-main" },
      el("span", { class: "row-title" }, vehicle.name ?? T.photos.unnamed),
      el("span", { class: "row-sub" }, sub.join(" · "))),
    el("span", { class: "row-side actions" },
      vehicle.retired
        ? [badge({ text: T.vehicles.retired, tone: "quiet" }), button(T.vehicles.bring, () => set(false))]
        : [
            button(T.vehicles.edit, () => editVehicle(vehicle, changed)),
            button(T.vehicles.retire, () => ask(T.vehicles.retireTitle, el("p", {}, T.vehicles.retireText), T.vehicles.retire, () => set(true), "danger"), "quiet"),
          ])));
}

export function vehiclesView(app) {
  const place = el("div", {});
  const load = () => fill(place, async () => {
    app.vehicles = await all("/v1/vehicles");
    if (app.vehicles.length === 0) return empty(T.vehicles.none, T.vehicles.noneText);
    const sorted = [...app.vehicles].sort((a, b) => Number(a.retired) - Number(b.retired));
    return el("ul", { class: "rows" }, sorted.map((vehicle) => row(vehicle, changed)));
  });
  const changed = async () => {
    await load();
    notify(T.saved);
  };
  load();
  return [el("div", { class: "title" }, el("h1", {}, T.vehicles.title), button(T.vehicles.add, () => addVehicle(changed), "primary")), place];
}
