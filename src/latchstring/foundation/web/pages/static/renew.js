// Submits the page's only form at once, before the page has loaded: the browser then replaces this page by the next one,
// and the back button leads to the site that the visitor came from.
document.getElementById("renew").requestSubmit();
