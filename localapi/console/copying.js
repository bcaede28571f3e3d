/** Buttons that copy, and say for a moment that they did. */

const SAID_MS = 1500;

/** Copy a text. Raises what the browser says where it may not. */
export async function copyText(text) {
  if (navigator.clipboard !== undefined) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Pages that are not of this machine and not under https have no clipboard object.
  const field = document.createElement("textarea");
  field.value = text;
  field.readOnly = true;
  field.className = "sr";
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) {
    throw new Error("The browser could not copy the text.");
  }
}

/** A button outside of Preact's trees; `textOf` is asked when it is pressed. */
export function copyButton(textOf, label) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button quiet small";
  button.textContent = label;
  button.addEventListener("click", async () => {
    const said = await copyText(textOf()).then(
      () => "Copied",
      () => "Not copied",
    );
    button.textContent = said;
    setTimeout(() => (button.textContent = label), SAID_MS);
  });
  return button;
}
