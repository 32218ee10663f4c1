import { ask, onChange, signIn, signOut, signUp } from "./session.js";

const byId = (id) => document.getElementById(id);

async function show() {
  const answer = await ask("/api/greeting");
  byId("greeting").textContent = answer.ok ? await answer.json() : "Nobody is signed in.";
  byId("sign-in").hidden = answer.ok;
  byId("signed-in").hidden = !answer.ok;
}

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { email, password } = Object.fromEntries(new FormData(event.target));
  const names = { first_name: email.split("@")[0], last_name: "Example", passwordConfirm: password };
  const isNew = event.submitter?.name === "register";
  const refusal = await (isNew ? signUp({ email, password, ...names }) : signIn({ email, password }));
  byId("refusal").textContent = refusal?.errors?.[0]?.detail ?? refusal?.detail ?? "";
});
byId("greet").addEventListener("click", show);
byId("sign-out").addEventListener("click", signOut);
onChange(show);
show();
