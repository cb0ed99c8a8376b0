// Tries the draft while somebody types, with the form that works without this script.
"use strict";

const form = document.querySelector("form[data-playground]");
const result = document.getElementById("result");
let timer = 0;
let running = null;

async function attempt() {
  running?.abort();
  const mine = running = new AbortController();
  const body = new URLSearchParams(new FormData(form));
  body.set("do", "try");
  result.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(form.getAttribute("action"), { method: "POST", body, signal: mine.signal, redirect: "manual", headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("result");
    if (fresh) {
      const open = [...result.querySelectorAll("details")].map((details) => details.open);
      const details = [...fresh.querySelectorAll("details")];
      if (details.length === open.length) details.forEach((one, at) => { one.open = open[at]; });
      result.replaceChildren(...fresh.childNodes);
    }
  } catch {
    // The next key tries again; the button of the form says what is wrong.
  }
  if (running === mine) result.removeAttribute("aria-busy");
}

form.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(attempt, 300);
});

// From a problem to its line.
result.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-line]");
  if (!link) return;
  event.preventDefault();
  const text = form.elements.namedItem("text");
  const lines = text.value.split("\n");
  const line = Math.min(Number(link.dataset.line), lines.length) - 1;
  const start = lines.slice(0, line).reduce((sum, one) => sum + one.length + 1, 0);
  text.focus();
  text.setSelectionRange(start, start + lines[line].length);
  text.scrollTop = text.scrollHeight * line / lines.length - text.clientHeight / 3;
});
