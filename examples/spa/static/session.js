// The session of this browser: its cookies, which no script can read. All tabs share it, and one of them refreshes.

const AUTH = "/auth";
const RENEWED_AT = "latchstring.renewed-at"; // when the cookies were last new: refreshed, or signed in
const SIGNED_IN = "latchstring.signed-in"; // what all tabs believe: not whether it is so, which the server knows
const LOCK = "latchstring.refresh";
const MOMENT = 1000;
const tabs = new BroadcastChannel("latchstring");

/** Calls `listener` with true or false when somebody has signed in or out, in this tab or another. */
export function onChange(listener) {
  tabs.addEventListener("message", (event) => listener(event.data));
}

/** Asks as `fetch` does. Where the answer is 401, the session is refreshed, once for all tabs, and it is asked again. */
export async function ask(path, options = {}) {
  const asked = Date.now();
  const answer = await fetch(path, options);
  // "Prove again who you are" (RFC 9470) is no matter of refreshing.
  const challenge = answer.headers.get("WWW-Authenticate") ?? "";
  if (answer.status !== 401 || challenge.includes("insufficient_user_authentication")) return answer;
  return (await refreshedSince(asked)) ? fetch(path, options) : answer;
}

/** Signs in, or up. Returns null, or the refusal: a problem document (RFC 9457). */
export async function signIn(body) {
  return change(`${AUTH}/login`, body);
}

export async function signUp(body) {
  return change(`${AUTH}/register`, body);
}

/** Signs out, in every tab. A 200 says that no token of this session is worth anything any more. */
export async function signOut() {
  const answer = await fetch(`${AUTH}/logout`, { method: "POST" });
  if (answer.ok) tell(false);
  return answer.ok;
}

async function change(path, body) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) return answer.json();
  noteRenewal();
  tell(true);
  return null;
}

async function refreshedSince(asked) {
  // One tab at a time. The server would give two the same tokens; this saves it the second request.
  const mine = await navigator.locks.request(LOCK, { ifAvailable: true }, (lock) => lock && refreshed(asked));
  if (mine !== null) return mine;
  await navigator.locks.request(LOCK, () => {}); // another one is at it: when it is done, ask again
  return true;
}

async function refreshed(asked) {
  const isNew = () => Number(localStorage.getItem(RENEWED_AT)) >= asked;
  if (isNew()) return true;
  let answer = await refresh();
  if (isRefusal(answer) && isNew()) return true;
  if (isRefusal(answer) && localStorage.getItem(SIGNED_IN)) {
    // It is about the cookies that were sent. Where another tab has signed in again, or changed the password, the browser
    // has others, or will have them in a moment.
    await new Promise((resolve) => setTimeout(resolve, MOMENT));
    if (isNew()) return true;
    answer = await refresh();
    // Anything else, such as 503 or 429, passes by itself, and has signed nobody out.
    if (isRefusal(answer)) tell(false);
  }
  if (answer.ok) noteRenewal();
  return answer.ok;
}

function refresh() {
  return fetch(`${AUTH}/refresh`, { method: "POST" });
}

function isRefusal(answer) {
  return answer.status === 401 || answer.status === 403;
}

function noteRenewal() {
  localStorage.setItem(RENEWED_AT, String(Date.now()));
}

function tell(isSignedIn) {
  localStorage.setItem(SIGNED_IN, isSignedIn ? "yes" : "");
  tabs.postMessage(isSignedIn);
  tabs.dispatchEvent(new MessageEvent("message", { data: isSignedIn })); // a channel does not hear itself
}
