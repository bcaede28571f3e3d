/** Chats with models: one composer, and a conversation with each model that is chosen. */

import { Composer, focusComposer } from "./composer.js";
import { Column } from "./column.js";
import { ModelMenu } from "./models.js";
import { SettingsPanel, countSet } from "./settings.js";
import { Conversation } from "./conversation.js";
import { html, useState } from "../dom.js";
import { soonModel } from "../first_model.js";
import { useFrames } from "./frames.js";
import { DIALECTS } from "./dialects.js";
import { checkRecordings, reads } from "./images.js";
import { requestFields } from "./parameters.js";
import { useSubject } from "../routes.js";

/** State that is kept while another page is shown. It ends with the tab. */
const session = {
  chosen: null,
  conversations: new Map(),
  settings: { system: "", dialect: "" },
  draft: "",
  images: [],
  announcement: "",
  onChange: () => {},
};

/** The ids of the models that the page talks to: those chosen, or one that answers soon and downloads nothing. */
function chosenOf(offered) {
  if (session.chosen === null && offered.length > 0) {
    session.chosen = [(soonModel(offered) ?? offered[0]).id];
  }
  return session.chosen ?? [];
}

function conversationWith(model, api) {
  if (!session.conversations.has(model)) {
    const onEnd = (answer) => announce(`${model}: ${answer.error?.message ?? (answer.content || answer.state)}`);
    session.conversations.set(model, new Conversation(model, { api, onEnd, onChange: () => session.onChange() }));
  }
  return session.conversations.get(model);
}

/** Whole answers for screen readers; single tokens would interrupt everything else. */
function announce(text) {
  session.announcement = `${session.announcement}\n${text}`.trim();
}

/** The page. */
export function ChatPage({ models, api, active }) {
  const show = useFrames(session);
  const [front, setFront] = useState(0);
  const [settingsOpen, setSettingsOpen] = useState(false);
  const [problem, setProblem] = useState("");
  const offered = models ?? [];
  const chosen = chosenOf(offered);
  const conversations = chosen.map((model) => conversationWith(model, api));
  const running = conversations.filter((conversation) => conversation.isRunning);

  /** Do something with the settings as a request needs them, or say what is wrong with them. Returns whether it was done. */
  function withSettings(act) {
    try {
      const { system, dialect } = session.settings;
      const turns = conversations.flatMap((conversation) => conversation.turns);
      checkRecordings(DIALECTS[dialect], [...session.images, ...turns.flatMap(({ images }) => images ?? [])]);
      const settings = { system, dialect, fields: requestFields(session.settings) };
      setProblem("");
      session.announcement = "";
      act(settings);
      return true;
    } catch (error) {
      setProblem(error.message);
      setSettingsOpen(true);
      return false;
    }
  }

  const choose = (ids) => {
    (session.chosen ?? []).filter((id) => !ids.includes(id)).forEach((id) => session.conversations.get(id)?.stop());
    session.chosen = ids;
    setFront((at) => Math.max(0, Math.min(at, ids.length - 1)));
    show();
  };
  /** By what is chosen now: several may be clicked before the page is shown again. */
  const toggle = (id) =>
    choose(session.chosen.includes(id) ? session.chosen.filter((each) => each !== id) : [...session.chosen, id]);
  const remove = (id) => {
    toggle(id);
    document.querySelector(".model-menu > summary").focus(); // the button goes with the column
  };
  const closeSettings = () => {
    setSettingsOpen(false);
    document.getElementById("chat-parameters").focus();
  };
  useSubject("chat", (id) => choose([id]));
  const blind = models === null ? [] : chosen.filter((id) => !reads(offered.find((model) => model.id === id), session.images));
  const send = (text) =>
    withSettings((settings) => {
      const { images } = session;
      session.draft = "";
      session.images = [];
      conversations.forEach((conversation) => conversation.say(text, settings, images));
    });
  /** Send a suggestion. Its button goes, so the keyboard goes on from the message field. */
  const begin = (text) => send(text) && focusComposer();
  const stop = () => running.forEach((conversation) => conversation.stop());
  /** From wherever the keyboard is on the page, but where Escape closes something. */
  const onKeyDown = (event) => event.key === "Escape" && !event.defaultPrevented && stop();
  const set = (changes) => {
    Object.assign(session.settings, changes);
    setProblem("");
    show();
  };

  return html`<div class="page wide chat ${settingsOpen ? "with-settings" : ""}" onKeyDown=${onKeyDown}>
    <${Head}
      offered=${offered}
      chosen=${chosen}
      toggle=${toggle}
      settingsOpen=${settingsOpen}
      toggleSettings=${() => setSettingsOpen(!settingsOpen)}
    />
    <${Tabs} conversations=${conversations} front=${front} setFront=${setFront} />
    <div class="chat-columns">
      ${chosen.length === 0 && html`<${NoModel} offered=${offered} loaded=${models !== null} />`}
      ${conversations.map(
        (conversation, at) =>
          html`<${Column}
            key=${conversation.model}
            conversation=${conversation}
            model=${offered.find((model) => model.id === conversation.model)}
            isKnown=${models !== null}
            isFront=${at === front}
            keyed=${api.hasKey}
            withSettings=${withSettings}
            say=${running.length === 0 && models !== null ? begin : null}
            remove=${conversations.length > 1 ? () => remove(conversation.model) : null}
          />`,
      )}
    </div>
    ${settingsOpen && html`<${SettingsPanel} settings=${session.settings} set=${set} close=${closeSettings} />`}
    <${Composer}
      session=${session}
      active=${active}
      count=${models === null ? null : conversations.length}
      isOffered=${offered.length > 0}
      blind=${blind}
      running=${running}
      problem=${problem}
      complain=${setProblem}
      send=${send}
      stop=${stop}
      show=${show}
    />
    <div class="sr" role="status">${session.announcement}</div>
  </div>`;
}

function Head({ offered, chosen, toggle, settingsOpen, toggleSettings }) {
  const count = countSet(session.settings);
  return html`<div class="page-head">
    <h1>Chat</h1>
    <${ModelMenu} offered=${offered} chosen=${chosen} toggle=${toggle} />
    <button
      type="button"
      class="button"
      id="chat-parameters"
      aria-expanded=${settingsOpen}
      aria-controls=${settingsOpen ? "chat-settings" : undefined}
      onClick=${toggleSettings}
    >
      Parameters${count > 0 && html` <span class="chat-count">${count}</span>`}
    </button>
  </div>`;
}

/** On a narrow page one conversation is seen at a time; these say which. */
function Tabs({ conversations, front, setFront }) {
  if (conversations.length < 2) {
    return null;
  }
  return html`<div class="chat-tabs row" role="group" aria-label="Conversation to show">
    ${conversations.map(
      ({ model: id, isRunning }, at) =>
        html`<button type="button" class="button" title=${id} key=${id} aria-pressed=${at === front} onClick=${() => setFront(at)}>
          ${isRunning && html`<span class="spinner" aria-hidden="true"></span>`}<span class="ellipsis">${id}</span>
        </button>`,
    )}
  </div>`;
}

function NoModel({ offered, loaded }) {
  if (!loaded) {
    return null;
  }
  if (offered.length > 0) {
    return html`<div class="empty"><strong>Choose a model above to start a conversation.</strong></div>`;
  }
  return html`<div class="empty">
    <strong>The manifest has no chat model.</strong>
    <p>Add one under <code>chat</code>, or run <code>localapi add demo</code>; it appears here at once.</p>
  </div>`;
}
