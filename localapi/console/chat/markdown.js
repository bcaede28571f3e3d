/**
 * A model's text as DOM nodes. It is markdown-it's, without HTML, then DOMPurify's, and still nothing in it may run,
 * load or style anything: links lead to the web or to mail and nowhere else, and an image is a link that names it.
 */

import DOMPurify from "../vendor/dompurify.js";
import markdownIt from "../vendor/markdown-it.js";
import { copyButton } from "../copying.js";
import { addRules } from "./markdown_rules.js";

const LINK = /^(?:https?:\/\/|mailto:)/i;
const TAGS = "a blockquote br code del em h3 h4 h5 h6 hr li ol p pre s strong table tbody td th thead tr ul".split(" ");
const ATTRIBUTES = ["class", "href", "start"];
const HIGHEST_HEADING = 3; // the page itself has two levels above an answer

const markdown = markdownIt({ html: false, linkify: true, breaks: false });
markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
markdown.validateLink = (address) => LINK.test(address.trim());
addRules(markdown);

markdown.core.ruler.push("console", (state) => {
  for (const token of state.tokens) {
    if (token.type === "heading_open" || token.type === "heading_close") {
      token.tag = `h${Math.min(6, Number(token.tag[1]) + HIGHEST_HEADING - 1)}`;
    }
    // The Content-Security-Policy refuses style attributes, by which markdown-it aligns a table's cells.
    const aligned = /text-align:(\w+)/.exec(token.attrGet("style") ?? "");
    if (aligned) {
      token.attrs = [["class", `align-${aligned[1]}`]];
    }
  }
});

markdown.renderer.rules.image = (tokens, index) => {
  const { escapeHtml } = markdown.utils;
  const token = tokens[index];
  const address = token.attrGet("src") ?? "";
  const name = `Image: ${token.content || address}`;
  return `<a class="image" href="${escapeHtml(address)}">${escapeHtml(name)}</a>`;
};

/** The text's blocks (paragraphs, lists, tables, …) as HTML, one string each. */
function blocksOf(text) {
  const env = {};
  const tokens = markdown.parse(text, env);
  const blocks = [];
  let begun = 0;
  let depth = 0;
  tokens.forEach((token, index) => {
    depth += token.nesting;
    if (depth === 0) {
      blocks.push(markdown.renderer.render(tokens.slice(begun, index + 1), markdown.options, env));
      begun = index + 1;
    }
  });
  return blocks;
}

function nodeOf(block) {
  const clean = DOMPurify.sanitize(block, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOWED_URI_REGEXP: LINK,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const link of clean.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  clean.querySelectorAll("pre").forEach(frameCode);
  clean.querySelectorAll("table").forEach(frameTable);
  const node = document.createElement("div");
  node.className = "block";
  node.dir = "auto"; // each by its own first letter: an answer may be in two scripts
  node.append(clean);
  return node;
}

function frameCode(pre) {
  const language = /(?:^|\s)language-(\S+)/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "";
  pre.firstElementChild?.removeAttribute("class");
  const frame = document.createElement("div");
  frame.className = "framed";
  const head = document.createElement("div");
  head.className = "framed-head";
  const name = document.createElement("span");
  name.textContent = language || "text";
  head.append(
    name,
    copyButton(() => pre.textContent.replace(/\n$/, ""), "Copy code"),
  );
  pre.className = "code";
  pre.dir = "ltr";
  pre.tabIndex = 0; // what scrolls must be reachable by keyboard
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", `Code: ${language || "text"}`);
  pre.replaceWith(frame);
  frame.append(head, pre);
}

function frameTable(table) {
  const frame = document.createElement("div");
  frame.className = "scroll";
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", "Table");
  table.className = "table";
  table.replaceWith(frame);
  frame.append(table);
}

/** Make a node like another. What is the same stays: the reader's selection, and where the browser has put it. */
function become(node, other) {
  if (node.nodeName !== other.nodeName) {
    node.replaceWith(other);
  } else if (node.nodeType === Node.TEXT_NODE) {
    let same = 0;
    while (same < node.length && node.data[same] === other.data[same]) {
      same += 1;
    }
    node.replaceData(same, node.length, other.data.slice(same));
  } else {
    const names = new Set([...node.getAttributeNames(), ...other.getAttributeNames()]);
    for (const name of names) {
      if (other.hasAttribute(name)) {
        node.setAttribute(name, other.getAttribute(name));
      } else {
        node.removeAttribute(name);
      }
    }
    const others = [...other.childNodes];
    [...node.childNodes].forEach((child, index) => {
      if (index >= others.length) {
        child.remove();
      } else if (!child.isEqualNode(others[index])) {
        become(child, others[index]);
      }
    });
    node.append(...others.slice(node.childNodes.length));
  }
}

/**
 * Show the text in an element. What is as it was keeps its nodes, so that a text that grows does not lose the reader's
 * selection, and costs little more than its last block.
 */
export function showMarkdown(element, text) {
  const shown = element.shownBlocks ?? [];
  const blocks = blocksOf(text);
  blocks.forEach((block, index) => {
    if (block === shown[index]) {
      return;
    }
    const node = nodeOf(block);
    if (index < element.children.length) {
      become(element.children[index], node);
    } else {
      element.append(node);
    }
  });
  while (element.children.length > blocks.length) {
    element.lastElementChild.remove();
  }
  element.shownBlocks = blocks;
}
