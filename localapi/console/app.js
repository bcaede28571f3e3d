/**
 * The frame of the console, and which page is shown.
 *
 * A page is a component, exported by its module: `export function ChatPage({models, status, api, server})`.
 *   models   null until known; as /v1/models, with each one's part of /status if the key may read it. A page for some
 *            kinds of models (`kinds` in PAGES) gets those of these only
 *   pageOf   the id of the page for each kind of model that has one
 *   status   as GET /status, or null where the key may not read it
 *   api      see api.js
 *   server   all that server.js knows; `admin`: whether buttons for /admin make sense; `round`: another with each key
 * A page is mounted when it is first shown and only hidden afterwards, so it keeps its state. `active` says which; the
 * others hear of nothing that is new.
 */

import { createApi } from "./api.js";
import { ChatPage } from "./chat/chat.js";
import { html, render, useEffect, useRef, useState } from "./dom.js";
import { EventsPage } from "./events/events.js";
import { Icon } from "./icons.js";
import { KeyDialog } from "./key.js";
import { EditorPage } from "./manifest/editor.js";
import { ModelsPage } from "./models/models.js";
import { RankingPage } from "./ranking/ranking.js";
import { ReferencePage } from "./reference/reference.js";
import { useServer } from "./server.js";
import { RequestsPage } from "./requests/requests.js";
import { SpeechPage } from "./speech/speech.js";
import { ThemeButton } from "./theme.js";
import { TranscriptionPage } from "./transcription/transcription.js";
import { UsagePage } from "./usage/usage.js";

const PAGES = [
  { id: "models", name: "Models", page: ModelsPage },
  { id: "chat", name: "Chat", page: ChatPage, kinds: ["chat"] },
  { id: "speech", name: "Speech", page: SpeechPage, kinds: ["speech"] },
  { id: "transcription", name: "Transcribe", page: TranscriptionPage, kinds: ["transcription"] },
  { id: "ranking", name: "Ranking", page: RankingPage, kinds: ["embedding", "rerank"] },
  { id: "manifest", name: "Manifest", page: EditorPage, adminOnly: true },
  { id: "requests", name: "Requests", page: RequestsPage, adminOnly: true, isWanted: (status) => status?.captures },
  { id: "usage", name: "Usage", page: UsagePage, adminOnly: true },
  { id: "events", name: "Events", page: EventsPage, adminOnly: true },
  { id: "api", name: "API", page: ReferencePage },
];
const PAGE_OF_KIND = Object.fromEntries(PAGES.flatMap(({ id, kinds = [] }) => kinds.map((kind) => [kind, id])));

let refused = () => {};
const api = createApi({ onRefused: (error) => refused(error) });

function pageOf(hash) {
  const id = hash.replace(/^#/, "").split("/")[0];
  return PAGES.some((page) => page.id === id) ? id : PAGES[0].id;
}

function useRoute() {
  const [route, setRoute] = useState(() => pageOf(location.hash));
  useEffect(() => {
    const follow = () => setRoute(pageOf(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return route;
}

function App() {
  const route = useRoute();
  const [round, setRound] = useState(0);
  const [refusal, setRefusal] = useState(null);
  const server = useServer(api, round);
  const seen = useRef(new Set());
  seen.current.add(route);
  refused = setRefusal;
  useEffect(() => {
    document.title = `${PAGES.find((page) => page.id === route).name} · localapi`;
  }, [route]);
  const useKey = (key) => {
    api.useKey(key);
    setRefusal(null);
    setRound(round + 1);
  };
  const admin = !server.limited;
  const given = { status: server.status, api, server: { ...server, admin, round }, pageOf: PAGE_OF_KIND };
  const modelsFor = (kinds) => (kinds ? server.models?.filter(({ kind }) => kinds.includes(kind)) : server.models) ?? null;
  return html`
    <a class="button skip" href="#main" onClick=${toMain}>Skip to the content</a>
    <div class="shell">
      <${Side} route=${route} server=${server} admin=${admin} />
      <main class="main" id="main" tabindex="-1">
        <${Connection} connection=${server.connection} />
        ${PAGES.filter(({ id }) => seen.current.has(id)).map(
          ({ id, page, kinds }) => html`<section key=${id} hidden=${id !== route} aria-label=${id}>
            <${Kept} page=${page} given=${{ ...given, models: modelsFor(kinds) }} active=${id === route} /></section>`,
        )}
      </main>
    </div>
    ${refusal && html`<${KeyDialog} refusal=${refusal} wrong=${api.hasKey} onKey=${useKey} />`}
  `;
}

/** A page that is drawn with what is new only while it is shown, and once more when it is hidden. */
function Kept({ page: Page, given, active }) {
  const drawn = useRef(null);
  const wasActive = useRef(true);
  if (active || wasActive.current) drawn.current = html`<${Page} ...${given} active=${active} />`;
  wasActive.current = active;
  return drawn.current;
}

function toMain(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function Side({ route, server, admin }) {
  const broken = server.status?.last_attempt?.problems.length ?? 0;
  return html`<header class="side">
    <a class="brand" href="#models"><img src="/console/icon.svg" alt="" />localapi</a>
    <nav class="nav" aria-label="Pages"><ul>
      ${PAGES.filter(({ adminOnly, isWanted = () => true }) => (admin || !adminOnly) && isWanted(server.status)).map(
        ({ id, name }) => html`<li key=${id}><a href="#${id}" aria-current=${id === route ? "page" : undefined}>
          <${Icon} name=${id} />${name}
          ${id === "models" && broken > 0 && html`<span class="count" aria-label="${broken} problems">${broken}</span>`}
        </a></li>`,
      )}
    </ul></nav>
    <div class="side-foot">
      <div class="row"><${State} connection=${server.connection} /><${ThemeButton} /></div>
      ${server.status && html`<span class="version">localapi ${server.status.version}</span>`}
    </div>
  </header>`;
}

const STATES = { connecting: ["", "Connecting"], open: ["good", "Live"], lost: ["bad", "Lost"], refused: ["warn", "Locked"],
  limited: ["warn", "Limited"] };

function State({ connection }) {
  const [tone, word] = STATES[connection.name];
  return html`<span class="badge ${tone}" role="status">${word}</span>`;
}

function Connection({ connection }) {
  if (connection.name !== "lost") return null;
  return html`<div class="page connection"><div class="notice bad" role="alert">
    <strong>Connection lost</strong>
    <span>${connection.error?.message} The data shown may be out of date. The page reconnects automatically.</span>
  </div></div>`;
}

render(html`<${App} />`, document.getElementById("app"));
