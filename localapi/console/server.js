/**
 * State of the server, kept up to date by `GET /status/events`.
 *
 * A key without the admin right may not listen; then the page requests the models every few seconds.
 */

import { useEffect, useState } from "./dom.js";

const KEPT_SAMPLES = 240;
const SAMPLE_MS = 1000;
const ASK_MS = 5000;
const KEPT_RECORDS = 500;
/** Log lines within this time are shown together: a server may write hundreds per second. */
const GATHER_MS = 200;
/** A browser allows six connections to one server, so a page that is hidden for this long closes its own. */
const UNSEEN_MS = 60_000;

const NOTHING = {
  connection: { name: "connecting" }, // then "open", "lost" (with error), "refused" (401, with error), "limited"
  limited: false, // whether the key has no admin right
  status: null, // as GET /status; null where it may not be read
  models: null, // those of /v1/models, with what /status says of each
  records: [], // of the log, the newest first
  samples: [], // {running, tokens, memory} for each of the last seconds; grows in place
  skew: 0, // what the server's clock is ahead of this one's, in seconds
};

/** Return the state, and render again when it changes. Another value of `round` starts from the beginning, as after a new key. */
export function useServer(api, round) {
  const [state, setState] = useState(NOTHING);
  useEffect(() => {
    setState({ ...NOTHING, samples: [] });
    return whileSeen(() => follow(api, setState));
  }, [round]);
  return state;
}

/** Runs `begin` while the page is seen, and what it returned a while after it is not; returns what ends it for good. */
function whileSeen(begin) {
  let end = begin();
  let timer = null;
  const onChange = () => {
    clearTimeout(timer);
    if (document.visibilityState === "hidden") timer = setTimeout(() => { end?.(); end = null; }, UNSEEN_MS);
    else end ??= begin();
  };
  document.addEventListener("visibilitychange", onChange);
  return () => {
    document.removeEventListener("visibilitychange", onChange);
    clearTimeout(timer);
    end?.();
  };
}

function follow(api, setState) {
  let ended = false;
  let asking = null;
  let catalog = null;
  let gathering = null;
  let gathered = { records: [], all: false };
  const set = (change) => {
    if (!ended) setState((state) => { const news = change(state); return news === state ? state : { ...state, ...news }; });
  };

  async function ask() {
    try {
      catalog = (await api.get("/v1/models")).data;
      set((state) => ({ models: merged(catalog, state.status) }));
      if (asking !== null) set(() => ({ connection: { name: "limited" } }));
    } catch (error) {
      if (asking !== null) set(() => ({ connection: { name: error.status === 401 ? "refused" : "lost", error } }));
    }
  }

  function gather({ records, all }) {
    gathered = all ? { records, all } : { records: [...gathered.records, ...records].slice(-KEPT_RECORDS), all: gathered.all };
    gathering ??= setTimeout(() => {
      const content = gathered;
      gathering = null;
      gathered = { records: [], all: false };
      set((state) => ({ records: withRecords(state.records, content) }));
    }, all ? 0 : GATHER_MS);
  }

  const stop = api.events("/status/events", {
    onState: (connection) => {
      if (connection.error?.status === 403) {
        set(() => ({ connection: { name: "limited" }, limited: true, status: null, models: null }));
        asking = setInterval(ask, ASK_MS);
        ask();
      } else {
        set(() => ({ connection }));
      }
    },
    onEvent: (name, content) => {
      if (name === "log") gather(content);
      if (name === "status" || name === "change") {
        set((state) => {
          const status = name === "status" ? content : changed(state.status, content);
          if (shape(status) !== shape(state.status)) ask();
          return { status, models: catalog && merged(catalog, status), skew: status.now - Date.now() / 1000 };
        });
      }
    },
  });
  // In place, as pages that show none of it need not be drawn again every second.
  const sampling = setInterval(() => set((state) => { sample(state); return state; }), SAMPLE_MS);
  return () => { ended = true; stop(); clearInterval(sampling); clearInterval(asking); clearTimeout(gathering); };
}

function changed(status, change) {
  const news = new Map((change.models ?? []).map((model) => [model.id, model]));
  return { ...status, ...change, models: status.models.map((model) => news.get(model.id) ?? model) };
}

/** Return the data that /v1/models depends on, as a text to compare. */
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

function sample({ status, connection, samples }) {
  if (!status || connection.name !== "open") return;
  const total = (count) => status.models.reduce((sum, model) => sum + (count(model) ?? 0), 0);
  samples.push({
    running: total((model) => model.leases),
    tokens: total((model) => model.tokens_per_second),
    memory: status.memory.used_bytes,
  });
  if (samples.length > KEPT_SAMPLES) samples.shift();
}
