// Makes the pages live. Nothing here is needed to use them: it shows times in the reader's zone,
// and asks for the page again when the gateway says that something has happened.
"use strict";

// The browser's own variety of the page's language: en-GB writes times otherwise than en.
const page = document.documentElement.lang;
const language = navigator.languages.find((tag) => tag.split("-")[0] === page) ?? page;
const zoned = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(language, { timeStyle: "medium" });

function showLocalTimes(root) {
  const today = new Date().toDateString();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    element.title = element.dateTime;
    element.textContent = (at.toDateString() === today ? clock : zoned).format(at);
  }
}

// Whether the reader is in the middle of something that new content would disturb.
function isBusy(element) {
  const focused = document.activeElement;
  if (focused && element.contains(focused) && focused.matches("input, select, textarea")) return true;
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && element.contains(selection.anchorNode)) return true;
  return false;
}

function replace(old, fresh) {
  if (isBusy(old)) return;
  showLocalTimes(fresh);
  if (old.innerHTML === fresh.innerHTML) return;
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const way = focused && (focused.id ? `#${CSS.escape(focused.id)}` : focused.getAttribute("href") && `a[href="${CSS.escape(focused.getAttribute("href"))}"]`);
  const open = [...old.querySelectorAll("details")].map((details) => details.open);
  const details = [...fresh.querySelectorAll("details")];
  if (details.length === open.length) details.forEach((one, at) => { one.open = open[at]; });
  old.replaceChildren(...fresh.childNodes);
  if (way) old.querySelector(way)?.focus({ preventScroll: true });
}

let asking = false;
let askAgain = false;

async function refresh() {
  if (document.hidden) { askAgain = true; return; }
  if (asking) { askAgain = true; return; }
  asking = true;
  askAgain = false;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "manual" });
    // The session is over: the login comes, and leads back here.
    if (answer.status === 401 || answer.type === "opaqueredirect") location.reload();
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(old.id);
        if (fresh) replace(old, fresh);
      }
    }
    show(answer.ok);
  } catch {
    show(false);
  }
  // At most one request a second, however much happens.
  setTimeout(() => { asking = false; if (askAgain) refresh(); }, 1000);
}

function show(isConnected) {
  document.documentElement.dataset.connection = isConnected ? "live" : "lost";
}

showLocalTimes(document);
if (document.querySelector("[data-live]")) {
  const events = new EventSource("/api/v1/events");
  events.onopen = () => show(true);
  events.onerror = () => show(false);
  // A page of one mail does not care for others.
  const mail = document.querySelector("[data-mail]")?.dataset.mail;
  const heard = (event) => {
    const about = JSON.parse(event.data).mail;
    if (!mail || !about || about === mail) refresh();
  };
  for (const kind of ["received", "decided", "attempt", "outcome", "status", "reload"]) {
    events.addEventListener(kind, heard);
  }
  // Ages and the charts move on although nothing happens; and an event may have been missed.
  setInterval(refresh, 30_000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && askAgain) refresh(); });
}
