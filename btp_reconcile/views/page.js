"use strict";
(() => {
  const form = document.querySelector("form.filters");
  if (!form) return;
  const text = form.elements.namedItem("text");
  const picked = ["subaccount", "kind", "sync", "health"].map((name) => [name, form.elements.namedItem(name)]).filter(([, one]) => one);
  const boxes = [...form.querySelectorAll("input[name=action]")];
  const shown = form.querySelector("output");
  const groups = [...document.querySelectorAll("section.subaccount")].map((section) => ({
    section,
    items: [...section.querySelectorAll(":scope > .changes > li")],
  }));
  const total = groups.reduce((sum, group) => sum + group.items.length, 0);
  const words = new Map();
  const saying = (item) => {
    if (!words.has(item)) words.set(item, item.textContent.toLowerCase());
    return words.get(item);
  };

  const filter = () => {
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const actions = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const choices = picked.filter(([, one]) => one.value).map(([name, one]) => [name, one.value]);
    let count = 0;
    for (const { section, items } of groups) {
      let here = 0;
      for (const item of items) {
        const fits = actions.has(item.dataset.action) && choices.every(([name, value]) => item.dataset[name] === value) &&
          wanted.every((word) => saying(item).includes(word));
        item.hidden = !fits;
        here += fits;
      }
      section.hidden = !here;
      count += here;
    }
    shown.textContent = `${count} of ${total} shown`;
  };

  const reset = () => {
    form.reset();
    for (const box of boxes) box.checked = true;
    filter();
  };

  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const item = target && target.closest(".changes > li");
    if (!item) return;
    if (item.hidden) reset();
    item.querySelector("details").open = true;
    item.scrollIntoView({ block: "center" });
    item.querySelector("summary").focus({ preventScroll: true });
  };

  let waiting = 0;
  text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, total > 500 ? 150 : 0);
  });
  form.addEventListener("change", (event) => {
    if (event.target !== text) filter();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelector("button[data-do=reset]").addEventListener("click", reset);
  form.querySelector("button[data-do=open]").addEventListener("click", () => {
    const items = groups.flatMap((group) => group.items).filter((item) => !item.hidden);
    const open = items.some((item) => !item.querySelector("details").open);
    for (const item of items) item.querySelector("details").open = open;
  });
  addEventListener("hashchange", reveal);
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
  });

  form.hidden = false;
  filter();
  if (location.hash) reveal();
})();
