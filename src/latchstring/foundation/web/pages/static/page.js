// What a page does better with a script than without one. Without it, everything still works.

showLocalTimes();
focusOnErrors();
offerToShowPasswords();
sendOnce();

/** Puts each moment into the visitor's zone and the page's language; the UTC text stays as its title. */
function showLocalTimes() {
  for (const element of document.querySelectorAll("time[datetime]")) {
    const style = "onlyDate" in element.dataset ? { dateStyle: "long" } : { dateStyle: "medium", timeStyle: "short" };
    try {
      const words = new Intl.DateTimeFormat(document.documentElement.lang, style).format(new Date(element.dateTime));
      element.title = element.textContent;
      element.textContent = words;
    } catch {
      // A language this browser doesn't know: the text in UTC is right as it is.
    }
  }
}

/** For browsers that know `autofocus` on inputs only. In others it comes first, and says so in the console if it can't. */
function focusOnErrors() {
  if (!("autofocus" in HTMLElement.prototype)) document.getElementById("errors")?.focus();
}

/** Takes over the buttons beside password fields, which are hidden until there is a script to make them work. */
function offerToShowPasswords() {
  for (const button of document.querySelectorAll("button.reveal")) {
    const input = document.getElementById(button.getAttribute("aria-controls"));
    const word = button.querySelector("span");
    const show = (isShown) => {
      input.type = isShown ? "text" : "password";
      word.textContent = isShown ? button.dataset.hide : button.dataset.show;
    };
    button.addEventListener("click", () => show(input.type === "password"));
    // A browser remembers what is sent from a text field and offers it to whoever sits there next.
    input.form.addEventListener("submit", () => show(false));
    button.hidden = false;
  }
}

/** A double click sends a form once. The second one is dropped only while the first is surely on its way. */
function sendOnce() {
  const sentAt = new WeakMap();
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented) return;
    if (event.timeStamp - sentAt.get(event.target) < 1000) event.preventDefault();
    else sentAt.set(event.target, event.timeStamp);
  });
}
