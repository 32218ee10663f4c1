// Submits the page's only form at once, before the page has loaded: the browser then replaces this page by the next one,
// and the back button leads to the site that the visitor came from. On a busy machine the page may have loaded first.
// A visitor who goes back to it then goes back once more, and is not sent forward again.
const { activation } = window.navigation ?? {};
const isBack =
  activation?.navigationType === "traverse" && activation.from !== null && activation.from.index > activation.entry.index;
if (isBack) {
  history.back();
} else {
  document.getElementById("renew").requestSubmit();
}
