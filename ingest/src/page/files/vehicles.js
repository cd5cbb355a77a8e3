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

// Offers a vehicle to the wallet of its next owner.
function offerVehicle(vehicle, changed) {
  const address = el("input", { required: true, maxLength: 42, autocomplete: "off", spellcheck: false, pattern: "0[xX][0-9a-fA-F]{40}" });
  ask(T.vehicles.offerTitle, [el("p", {}, T.vehicles.offerText), field(T.vehicles.offerAddress, address, T.vehicles.offerHint)], T.vehicles.offer, async () => {
    await send("POST", `/v1/vehicles/${vehicle.vehicle_id}/transfers`, { address: address.value.trim() });
    await changed();
  });
}

// A vehicle that is offered, to its owner or to whoever may have it.
function transferRow(app, transfer, changed) {
  const path = `/v1/transfers/${transfer.transfer_id}`;
  const act = async (method, more = "") => {
    await send(method, path + more);
    await changed();
  };
  const other = transfer.offered_by_you ? transfer.to_address : transfer.from_address;
  const name = app.vehicles.find(({ vehicle_id }) => vehicle_id === transfer.vehicle_id)?.name ?? T.vehicles.kinds[transfer.kind];
  const whom = transfer.offered_by_you ? T.vehicles.offeredTo(T.short(other)) : T.vehicles.offeredBy(other ? T.short(other) : T.vehicles.somebody);
  return el("li", {}, el("div", { class: "row wraps" },
    el("span", { class: "row-main" },
      el("span", { class: "row-title" }, name),
      el("span", { class: "row-sub", title: other ?? "" }, [whom, T.vehicles.until(T.day(transfer.expires_at))].join(" · "))),
    el("span", { class: "row-side actions" },
      transfer.offered_by_you
        ? button(T.vehicles.takeBack, () => act("DELETE"), "quiet")
        : [
            button(T.vehicles.accept, () => ask(T.vehicles.acceptTitle, el("p", {}, T.vehicles.acceptText), T.vehicles.accept, () => act("POST", "/accept"))),
            button(T.vehicles.decline, () => act("POST", "/decline"), "quiet"),
          ])));
}

function row(vehicle, changed) {
  const set = async (retired) => {
    await send("PATCH", `/v1/vehicles/${vehicle.vehicle_id}`, { retired });
    await changed();
  };
  const sub = [T.vehicles.kinds[vehicle.kind], T.vehicles.units[vehicle.unit ?? ""], T.vehicles.since(T.day(vehicle.created_at))];
  return el("li", {}, el("div", { class: "row wraps" },
    el("span", { class: "row-main" },
      el("span", { class: "row-title" }, vehicle.name ?? T.photos.unnamed),
      el("span", { class: "row-sub" }, sub.join(" · "))),
    el("span", { class: "row-side actions" },
      vehicle.retired
        ? [badge({ text: T.vehicles.retired, tone: "quiet" }), button(T.vehicles.bring, () => set(false))]
        : [
            button(T.vehicles.edit, () => editVehicle(vehicle, changed)),
            button(T.vehicles.offer, () => offerVehicle(vehicle, changed), "quiet"),
            button(T.vehicles.retire, () => ask(T.vehicles.retireTitle, el("p", {}, T.vehicles.retireText), T.vehicles.retire, () => set(true), "danger"), "quiet"),
          ])));
}

export function vehiclesView(app) {
  const place = el("div", {});
  const load = () => fill(place, async () => {
    const [vehicles, transfers] = await Promise.all([all("/v1/vehicles"), all("/v1/transfers")]);
    app.vehicles = vehicles;
    const open = transfers.filter(({ status }) => status === "open");
    const sorted = [...vehicles].sort((a, b) => Number(a.retired) - Number(b.retired));
    return [
      open.length > 0 ? el("h2", {}, T.vehicles.transfers) : null,
      open.length > 0 ? el("ul", { class: "rows" }, open.map((transfer) => transferRow(app, transfer, changed))) : null,
      vehicles.length > 0
        ? el("ul", { class: "rows" }, sorted.map((vehicle) => row(vehicle, changed)))
        : empty(T.vehicles.none, T.vehicles.noneText),
    ].filter(Boolean);
  });
  const changed = async () => {
    await load();
    notify(T.saved);
  };
  load();
  return [el("div", { class: "title" }, el("h1", {}, T.vehicles.title), button(T.vehicles.add, () => addVehicle(changed), "primary")), place];
}
