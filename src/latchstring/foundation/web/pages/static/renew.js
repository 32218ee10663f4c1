// Sends the page's one form at once. Before the page has loaded, so that the browser puts the next page in its place, and
// the back button leads to the site that the visitor came from.
document.getElementById("renew").requestSubmit();
