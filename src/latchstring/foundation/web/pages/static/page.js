// Improvements of a page by script. Without it, everything still works.

showLocalTimes();
focusOnErrors();
offerToShowPasswords();
sendOnce();

/** Shows each time in the visitor's time zone and the page's language; the UTC text becomes its title. */
function showLocalTimes() {
  for (const element of document.querySelectorAll("time[datetime]")) {
    const style = "onlyDate" in element.dataset ? { dateStyle: "long" } : { dateStyle: "medium", timeStyle: "short" };
    try {
      const local = new Intl.DateTimeFormat(document.documentElement.lang, style).format(new Date(element.dateTime));
      element.title = element.textContent;
      element.textContent = local;
    } catch {
      // The browser doesn't know the language: the text in UTC stays, and is right.
    }
  }
}

/** For browsers that support `autofocus` on inputs only. Others focus the errors themselves. */
function focusOnErrors() {
  if (!("autofocus" in HTMLElement.prototype)) document.getElementById("errors")?.focus();
}

/** Shows the buttons beside password fields, which are hidden because they need a script. */
function offerToShowPasswords() {
  for (const button of document.querySelectorAll("button.reveal")) {
    const input = document.getElementById(button.getAttribute("aria-controls"));
    const word = button.querySelector("span");
    const show = (isShown) => {
      input.type = isShown ? "text" : "password";
      word.textContent = isShown ? button.dataset.hide : button.dataset.show;
    };
    button.addEventListener("click", () => show(input.type === "password"));
    // Browsers remember what is sent from a text field, and suggest it to the next user of the computer.
    input.form.addEventListener("submit", () => show(false));
    button.hidden = false;
  }
}

/** Sends a form once on a double click: a second submit is dropped within a second of the first. */
function sendOnce() {
  const sentAt = new WeakMap();
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented) return;
    if (event.timeStamp - sentAt.get(event.target) < 1000) event.preventDefault();
    else sentAt.set(event.target, event.timeStamp);
  });
}
