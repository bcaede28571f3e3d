/** The profile that is merged over the manifest, and a choice of another. */

import { html, useEffect, useState } from "../dom.js";
import { Failure } from "../failure.js";

const NONE = "";

export function Profiles({ api, status, onDone }) {
  const [available, setAvailable] = useState([]);
  const [error, setError] = useState(null);
  const active = status?.manifest.profile ?? NONE;
  useEffect(() => {
    api.get("/admin/profiles").then((found) => setAvailable(found.available), setError);
  }, [active]);
  const choose = async (event) => {
    const name = event.target.value;
    try {
      setError(null);
      await api.post("/admin/profile", { profile: name === NONE ? null : name });
      await onDone(name === NONE ? "No profile is active" : `The profile ${name} is active`);
    } catch (failure) {
      event.target.value = active;
      setError(failure);
    }
  };
  if (available.length === 0) return null;
  return html`<div class="row"><label class="small" for="profile">Profile</label>
      <select class="input" id="profile" value=${active} onChange=${choose}>
        <option value=${NONE}>none</option>
        ${available.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></div>
    ${error && html`<div class="grow wide-failure" role="alert"><${Failure} error=${error} /></div>`}`;
}
