// Submits the page's only form at once, before the page has loaded: the browser then replaces this page by the next one,
// and the back button leads to the site that the visitor came from. On a busy machine the page may load first, and stay
// in the history: a visitor who goes back to it is then taken back one more step, instead of forward again.
const { activation } = window.navigation ?? {};
const isBack =
  activation?.navigationType === "traverse" && activation.from !== null && activation.from.index > activation.entry.index;
if (isBack) {
  history.back();
} else {
  document.getElementById("renew").requestSubmit();
}
