"use strict";
const gallery = document.getElementById("gallery");
if (gallery) {
  const shots = Array.from(gallery.querySelectorAll("figure"));
  const selects = Array.from(document.querySelectorAll("select[data-by]"));
  const order = document.getElementById("order");
  const said = document.getElementById("said");
  const all = document.getElementById("all");
  const buttons = Array.from(document.querySelectorAll("button[data-cell], button[data-kind]"));
  let pressed = null;

  const has = (shot, key, value) => (shot.dataset[key] || "").split(" ").includes(value);

  const show = () => {
    let shown = 0;
    for (const shot of shots) {
      const fits = selects.every((s) => !s.value || has(shot, s.dataset.by, s.value))
        && (!pressed || !pressed.dataset.cell || has(shot, "cells", pressed.dataset.cell))
        && (!pressed || !pressed.dataset.kind || has(shot, "kinds", pressed.dataset.kind));
      shot.hidden = !fits;
      shown += fits;
    }
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === pressed));
    const which = pressed ? ": " + pressed.getAttribute("aria-label") : "";
    said.textContent = shown + " of " + shots.length + " shown" + which;
    all.hidden = !pressed && selects.every((s) => !s.value);
  };

  const sort = () => {
    const by = order.value;
    const value = (shot) => Number(shot.dataset[by]);
    for (const shot of shots.slice().sort((a, b) => value(a) - value(b))) gallery.append(shot);
  };

  for (const button of buttons) {
    button.addEventListener("click", () => {
      pressed = button === pressed ? null : button;
      if (pressed) {
        for (const s of selects) s.value = "";
        document.getElementById("pictures").scrollIntoView();
        document.getElementById("pictures-head").focus({ preventScroll: true });
      }
      show();
    });
  }
  for (const s of selects) s.addEventListener("change", show);
  order.addEventListener("change", sort);
  all.addEventListener("click", () => {
    pressed = null;
    for (const s of selects) s.value = "";
    show();
    selects.length ? selects[0].focus() : order.focus();
  });
  document.getElementById("filters").hidden = false;
  show();
}
