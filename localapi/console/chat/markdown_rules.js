/**
 * What models write and markdown-it does not know: mathematics, tasks, and <br> in the cells of tables.
 *
 * Mathematics is shown as it was written, in the type of code: otherwise its backslashes, stars and underscores would be
 * taken for markdown's, and what is left of a formula is another formula.
 */

const PAIRS = { "\\(": "\\)", "\\[": "\\]", $$: "$$", $: "$" };
const MOST_INLINE = 1000; // characters; a pair that is not closed would be looked for to the end again and again
const BREAK = /^<br\s*\/?>/i;
const TASK = /^\[([ xX])\]\s/;

export function addRules(markdown) {
  markdown.inline.ruler.before("escape", "math", inlineMath);
  markdown.inline.ruler.before("escape", "break", lineBreak);
  markdown.block.ruler.before("fence", "math", blockMath, { alt: ["paragraph", "blockquote", "list"] });
  markdown.core.ruler.after("inline", "tasks", tasks);
}

function openerAt(text, at) {
  return Object.keys(PAIRS).find((opener) => text.startsWith(opener, at));
}

function inlineMath(state, silent) {
  const { src: text, pos, posMax } = state;
  const opener = openerAt(text, pos);
  if (opener === undefined) {
    return false;
  }
  const begin = pos + opener.length;
  const length = text.slice(begin, Math.min(posMax, begin + MOST_INLINE)).indexOf(PAIRS[opener]);
  const end = begin + length + opener.length;
  if (length < 1 || (opener === "$" && !isFormula(text.slice(begin, begin + length), text[end]))) {
    return false;
  }
  if (!silent) {
    state.push("code_inline", "code", 0).content = text.slice(pos, end);
  }
  state.pos = end;
  return true;
}

/** True if a text between single dollars is a formula, not an amount of money, by Pandoc's rule. */
function isFormula(text, next) {
  return !/^\s|\s$/.test(text) && !/\d/.test(next ?? "");
}

function blockMath(state, startLine, endLine, silent) {
  const lineOf = (line) => state.src.slice(state.bMarks[line] + state.tShift[line], state.eMarks[line]).trimEnd();
  const opener = ["$$", "\\["].find((each) => lineOf(startLine).startsWith(each));
  if (opener === undefined || state.sCount[startLine] - state.blkIndent >= 4) {
    return false;
  }
  let line = startLine;
  const isLast = () => lineOf(line).slice(line === startLine ? opener.length : 0).endsWith(PAIRS[opener]);
  while (!isLast()) {
    line += 1;
    if (line >= endLine || (state.sCount[line] < state.blkIndent && !state.isEmpty(line))) {
      return false;
    }
  }
  if (!silent) {
    const token = state.push("fence", "code", 0);
    token.info = "math";
    token.content = `${state.getLines(startLine, line + 1, state.blkIndent, false)}\n`;
    token.map = [startLine, line + 1];
    state.line = line + 1;
  }
  return true;
}

function lineBreak(state, silent) {
  const found = BREAK.exec(state.src.slice(state.pos, state.pos + 8));
  if (found === null) {
    return false;
  }
  if (!silent) {
    state.push("hardbreak", "br", 0);
  }
  state.pos += found[0].length;
  return true;
}

/** A box in the place of an item's point. */
function tasks(state) {
  state.tokens.forEach((token, index) => {
    const [item, paragraph] = state.tokens.slice(Math.max(0, index - 2), index);
    const first = token.children?.[0];
    if (item?.type !== "list_item_open" || paragraph?.type !== "paragraph_open" || first?.type !== "text") {
      return;
    }
    const found = TASK.exec(first.content);
    if (found !== null) {
      first.content = `${found[1] === " " ? "☐" : "☑"} ${first.content.slice(found[0].length)}`;
      item.attrJoin("class", "task");
    }
  });
}
