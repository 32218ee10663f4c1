// Keeps the session of a page that is left open: shortly before the access token runs out, one of this browser's tabs
// has it renewed. The tokens are in cookies that no script can read, and all tabs share them.
//
//   due? ── wait for the lock ── another tab was faster? ── yes: set the timer
//                                                        └─ no: ask ── 2xx: tell the others, set the timer
//                                                                   ├─ 401, 403: another tab has new cookies?
//                                                                   │    ├─ yes: set the timer
//                                                                   │    └─ no: pause, and ask once more with the
//                                                                   │       cookies of then; again: ask no more
//                                                                   └─ anything else: pause, and ask again

const LOCK = "latchstring-renewal";
const RENEWED_UNTIL = "latchstring-renewed-until"; // milliseconds since 1970; a hint, and no secret
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

const page = document.documentElement.dataset;
const life = Number(page.life) * SECOND;
const margin = Math.min(MINUTE, life / 3);

let ends; // when the access token runs out, by two clocks
let timer;
let pause = 0; // grows with each failure
let pausedUntil = 0;
let isOffline = false;
let isBusy = false;
let isDoubtful = false; // refused once: the session is over, or another tab has just begun the next one
let isOver = false;

if (life > 0) begin();

function begin() {
  endIn(Number(page.expiresIn) * SECOND);
  // The server may have renewed on the way to this page. What the page says is exact: the hint isn't read here.
  if (left() > hinted()) tell();

  addEventListener("storage", (event) => {
    if (event.key !== RENEWED_UNTIL || !adopt()) return;
    isOver = false; // signed in again, in another tab
    plan(); // if a request is on its way, with the cookies of before, its refusal won't end this
  });
  // Timers sleep in the background, and with the computer.
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") look();
  });
  addEventListener("online", () => {
    if (isOffline) pausedUntil = 0;
    look();
  });
  // Back, after signing out, must show nothing: a page that a browser kept alive is asked for anew. By its own address,
  // since a reload would send a form a second time.
  addEventListener("pagehide", (event) => {
    document.documentElement.hidden = event.persisted;
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.replace(page.here);
    else look();
  });
  look();
}

/** Renews if it is time to, or waits until it is. */
function look() {
  if (isOver || isBusy || Date.now() < pausedUntil) return;
  if (left() > margin) plan();
  else void renew();
}

function plan(delay = left() - margin) {
  clearTimeout(timer);
  timer = setTimeout(
    () => {
      pausedUntil = 0; // a pause is over when its timer says so, even if the clock was put back
      look();
    },
    // Never at once, whatever the numbers say; and never far off, since a delay of 25 days and more counts as none.
    Math.min(Math.max(delay, SECOND), HOUR),
  );
}

async function renew() {
  isBusy = true;
  const delay = await alone(async () => {
    adopt();
    return left() > margin ? undefined : ask();
  });
  isBusy = false;
  if (!isOver) plan(delay);
}

/** Asks for new tokens. Returns how long to wait before asking again, or undefined: as long as they live. */
async function ask() {
  const askedAt = performance.now();
  let answer;
  try {
    answer = await fetch(page.renewalUrl, {
      method: "POST",
      credentials: "same-origin",
      redirect: "error", // a captive portal's sign-in page is no renewal
      // Well within the server's grace of 30 seconds: if only the answer was lost, asking again gets the same tokens,
      // and asked later it would be taken for a thief.
      signal: AbortSignal.timeout(8 * SECOND),
    });
  } catch {
    isOffline = true;
    return rest(0);
  }
  isOffline = false;
  if (answer.ok) {
    // Nothing in it is needed; unread it would count as cancelled.
    await answer.arrayBuffer().catch(() => {});
    pause = 0;
    isDoubtful = false;
    endIn(life - (performance.now() - askedAt));
    tell();
    return undefined;
  }
  if (answer.status === 401 || answer.status === 403) {
    // It is about the cookies that were sent. A new password ends the session they belong to, and so does signing in
    // again: the tab where that was done has the next ones, or will have them in a moment. It may have told already.
    adopt();
    if (left() > margin) return undefined;
    // No navigation: what somebody is typing here must not be lost. The next click leads to the sign-in.
    isOver = isDoubtful;
    isDoubtful = true;
  }
  return rest(seconds(answer.headers.get("Retry-After")));
}

/** Begins a pause: 3 seconds, then twice as long each time, up to 5 minutes; or as long as the server wants. */
function rest(wanted) {
  pause = Math.min(Math.max(2 * pause, 3 * SECOND), 5 * MINUTE);
  const length = Math.min(Math.max(pause, wanted), HOUR);
  pausedUntil = Date.now() + length;
  return length;
}

/** `Retry-After` in milliseconds, from now: it is a number of seconds, or a date. */
function seconds(header) {
  if (!header) return 0;
  const wanted = /^\d+$/.test(header) ? Number(header) * SECOND : Date.parse(header) - Date.now();
  return wanted > 0 ? wanted : 0;
}

/** Runs `work`, which never throws, in one tab at a time; where there are no locks, just so. */
async function alone(work) {
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

function endIn(milliseconds) {
  ends = { wall: Date.now() + milliseconds, steady: performance.now() + milliseconds };
}

/** What is left of the access token, by the clock that says less: one sleeps with the computer, one can be put back. */
function left() {
  return Math.min(ends.wall - Date.now(), ends.steady - performance.now());
}

function tell() {
  try {
    localStorage.setItem(RENEWED_UNTIL, String(Math.round(ends.wall)));
  } catch {
    // Full, or not allowed: the other tabs will ask for themselves, and get the same tokens.
  }
}

/** What is left, as another tab has told it. More than a whole life is from another clock, and not believed. */
function hinted() {
  try {
    const hint = Number(localStorage.getItem(RENEWED_UNTIL)) - Date.now();
    return hint > 0 && hint <= life ? hint : 0;
  } catch {
    return 0;
  }
}

/** Believes the hint where it says more than is known here. Returns whether it does. */
function adopt() {
  const hint = hinted();
  if (hint === 0 || hint <= left()) return false;
  endIn(hint);
  pause = 0;
  pausedUntil = 0;
  isDoubtful = false;
  return true;
}
