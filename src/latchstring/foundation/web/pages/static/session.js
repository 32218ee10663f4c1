// Keeps the session of an open page active: shortly before the access token expires, one of the browser's tabs
// refreshes it. The tokens are in cookies that no script can read, and all tabs share them.
//
//   due? ── take the lock ── another tab was faster? ── yes: set the timer
//                                                    └─ no: refresh ── 2xx: share the expiry, set the timer
//                                                                   ├─ 401, 403: another tab has new cookies?
//                                                                   │    ├─ yes: set the timer
//                                                                   │    └─ no: pause, try once more with the cookies
//                                                                   │       there are then; refused again: stop
//                                                                   └─ anything else: pause, try again

const LOCK = "latchstring-renewal";
const RENEWED_UNTIL = "latchstring-renewed-until"; // milliseconds since 1970; a hint, not a secret
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

const page = document.documentElement.dataset;
const life = Number(page.life) * SECOND;
const margin = Math.min(MINUTE, life / 3);

let ends; // when the access token expires, by two clocks
let timer;
let pause = 0; // grows with each failure
let pausedUntil = 0;
let isOffline = false;
let isBusy = false;
let isDoubtful = false; // refused once: the session has ended, or another tab has just replaced it
let isOver = false;

if (life > 0) begin();

function begin() {
  endIn(Number(page.expiresIn) * SECOND);
  // The server may have refreshed on the way to this page. The page's own data is exact: the hint isn't adopted here.
  if (left() > hinted()) share();

  addEventListener("storage", (event) => {
    if (event.key !== RENEWED_UNTIL || !adopt()) return;
    isOver = false; // signed in again, in another tab
    plan(); // a request that is under way has the old cookies: its refusal doesn't stop the refreshes
  });
  // Timers stop in background tabs, and while the computer sleeps.
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") check();
  });
  addEventListener("online", () => {
    if (isOffline) pausedUntil = 0;
    check();
  });
  // After signing out, Back must show nothing: a page from the back-forward cache is loaded again. By its own URL, as a
  // reload would send a form a second time.
  addEventListener("pagehide", (event) => {
    document.documentElement.hidden = event.persisted;
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.replace(page.here);
    else check();
  });
  check();
}

/** Refreshes if it is due, or sets the timer. */
function check() {
  if (isOver || isBusy || Date.now() < pausedUntil) return;
  if (left() > margin) plan();
  else void renew();
}

function plan(delay = left() - margin) {
  clearTimeout(timer);
  timer = setTimeout(
    () => {
      pausedUntil = 0; // a pause ends with its timer, even if the clock was set back meanwhile
      check();
    },
    // At least a second, so that wrong clocks cause no loop; at most an hour, as delays over 24.8 days count as 0.
    Math.min(Math.max(delay, SECOND), HOUR),
  );
}

async function renew() {
  isBusy = true;
  const delay = await withLock(async () => {
    adopt();
    return left() > margin ? undefined : refresh();
  });
  isBusy = false;
  if (!isOver) plan(delay);
}

/** Refreshes the tokens. Returns the pause before the next try in milliseconds, or undefined: until they expire. */
async function refresh() {
  const sentAt = performance.now();
  let response;
  try {
    response = await fetch(page.renewalUrl, {
      method: "POST",
      credentials: "same-origin",
      redirect: "error", // a captive portal's sign-in page is not a success
      // Well within the server's grace of 30 seconds: if only the response was lost, another try gets the same tokens;
      // after the grace it would count as theft, and end the session.
      signal: AbortSignal.timeout(8 * SECOND),
    });
  } catch {
    isOffline = true;
    return startPause(0);
  }
  isOffline = false;
  if (response.ok) {
    // The body isn't needed, but an unread response counts as cancelled.
    await response.arrayBuffer().catch(() => {});
    pause = 0;
    isDoubtful = false;
    endIn(life - (performance.now() - sentAt));
    share();
    return undefined;
  }
  if (response.status === 401 || response.status === 403) {
    // The cookies that were sent are refused. A password change ends their session, and so does a new sign-in: the tab
    // where that happened has the new cookies, or gets them in a moment. It may have shared their expiry already.
    adopt();
    if (left() > margin) return undefined;
    // No navigation: what the visitor is typing must not be lost. The next click leads to the sign-in page.
    isOver = isDoubtful;
    isDoubtful = true;
  }
  return startPause(milliseconds(response.headers.get("Retry-After")));
}

/** Begins a pause: 3 seconds, then twice as long each time, up to 5 minutes; or as long as `Retry-After` says. */
function startPause(wanted) {
  pause = Math.min(Math.max(2 * pause, 3 * SECOND), 5 * MINUTE);
  const length = Math.min(Math.max(pause, wanted), HOUR);
  pausedUntil = Date.now() + length;
  return length;
}

/** Converts `Retry-After`, a number of seconds or a date (RFC 9110, 10.2.3), to milliseconds from now. */
function milliseconds(header) {
  if (!header) return 0;
  const wanted = /^\d+$/.test(header) ? Number(header) * SECOND : Date.parse(header) - Date.now();
  return wanted > 0 ? wanted : 0;
}

/** Runs `work`, which never throws, in one tab at a time; without a lock if the browser has no Web Locks. */
async function withLock(work) {
  let started = false;
  try {
    return await navigator.locks.request(LOCK, () => {
      started = true;
      return work();
    });
  } catch {
    return started ? undefined : work();
  }
}

function endIn(duration) {
  ends = { wall: Date.now() + duration, steady: performance.now() + duration };
}

/** The milliseconds until the access token expires, by the clock with fewer left: `steady` stops while the computer
 *  sleeps, and `wall` can be set back. */
function left() {
  return Math.min(ends.wall - Date.now(), ends.steady - performance.now());
}

/** Shares the expiry with the other tabs. */
function share() {
  try {
    localStorage.setItem(RENEWED_UNTIL, String(Math.round(ends.wall)));
  } catch {
    // Full, or not allowed: the other tabs refresh for themselves, and get the same tokens within the grace.
  }
}

/** The milliseconds left according to another tab; 0 if there are none. More than a lifetime is from a wrong clock. */
function hinted() {
  try {
    const hint = Number(localStorage.getItem(RENEWED_UNTIL)) - Date.now();
    return hint > 0 && hint <= life ? hint : 0;
  } catch {
    return 0;
  }
}

/** Takes over the hint if it is later than this tab's own expiry. Returns whether it is. */
function adopt() {
  const hint = hinted();
  if (hint === 0 || hint <= left()) return false;
  endIn(hint);
  pause = 0;
  pausedUntil = 0;
  isDoubtful = false;
  return true;
}
