/**
 * What the page knows of the server, kept up to date by `GET /status/events`.
 *
 * A key without the admin right may not listen; then the models are asked for every few seconds.
 */

import { useEffect, useState } from "./dom.js";

const KEPT_SAMPLES = 240;
const SAMPLE_MS = 1000;
const ASK_MS = 5000;
const KEPT_RECORDS = 500;

const NOTHING = {
  connection: { name: "connecting" }, // then "open", "lost" (with error), "refused" (401 or 403, with error)
  status: null, // as GET /status; null where it may not be read
  models: null, // those of /v1/models, with what /status says of each
  records: [], // of the log, the newest first
  samples: [], // {running, tokens, memory} for each of the last seconds
};

/** The state, again whenever it changes. `round` begins anew with another value, as after a key was given. */
export function useServer(api, round) {
  const [state, setState] = useState(NOTHING);
  useEffect(() => {
    setState(NOTHING);
    return follow(api, setState);
  }, [round]);
  return state;
}

function follow(api, setState) {
  let ended = false;
  let asking = null;
  let catalog = null;
  const set = (change) => { if (!ended) setState((state) => ({ ...state, ...change(state) })); };

  async function ask() {
    try {
      catalog = (await api.get("/v1/models")).data;
      set((state) => ({ models: merged(catalog, state.status) }));
    } catch (error) {
      if (asking !== null && error.status !== 401) set(() => ({ connection: { name: "refused", error } }));
    }
  }

  const stop = api.events("/status/events", {
    onState: (connection) => {
      set(() => ({ connection }));
      if (connection.name === "refused" && connection.error.status === 403) {
        ask();
        asking = setInterval(ask, ASK_MS);
      }
    },
    onEvent: (name, content) => {
      if (name === "log") set((state) => ({ records: withRecords(state.records, content) }));
      if (name === "status" || name === "change") {
        set((state) => {
          const status = name === "status" ? content : changed(state.status, content);
          if (shape(status) !== shape(state.status)) ask();
          return { status, models: catalog && merged(catalog, status) };
        });
      }
    },
  });
  const sampling = setInterval(() => set((state) => ({ samples: withSample(state) })), SAMPLE_MS);
  return () => { ended = true; stop(); clearInterval(sampling); clearInterval(asking); };
}

function changed(status, change) {
  const news = new Map((change.models ?? []).map((model) => [model.id, model]));
  return { ...status, ...change, models: status.models.map((model) => news.get(model.id) ?? model) };
}

/** What /v1/models depends on, as a text to compare. */
function shape(status) {
  return JSON.stringify([status?.revision, status?.models.map((model) => [model.id, model.state, model.serving])]);
}

function merged(catalog, status) {
  const live = new Map((status?.models ?? []).map((model) => [model.id, model]));
  return catalog.filter((model) => !status || live.has(model.id)).map((model) => ({ ...model, ...live.get(model.id) }));
}

function withRecords(records, { records: more, all }) {
  return [...more.toReversed(), ...(all ? [] : records)].slice(0, KEPT_RECORDS);
}

function withSample({ status, connection, samples }) {
  if (!status || connection.name !== "open") return samples;
  const total = (count) => status.models.reduce((sum, model) => sum + (count(model) ?? 0), 0);
  const sample = {
    running: total((model) => model.leases),
    tokens: total((model) => model.tokens_per_second),
    memory: status.memory.used_bytes,
  };
  return [...samples, sample].slice(-KEPT_SAMPLES);
}
