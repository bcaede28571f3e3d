/** The part of the address after a page's name: `#chat/demo` is the page `chat` about `demo`. */

import { useEffect } from "./dom.js";

/** Call `act` with what the address says behind `page`, once for each address that says something. */
export function useSubject(page, act) {
  useEffect(() => {
    const look = () => {
      const [name, ...rest] = location.hash.slice(1).split("/");
      if (name === page && rest.length > 0) {
        history.replaceState(null, "", `#${page}`);
        act(decoded(rest.join("/")));
      }
    };
    look();
    addEventListener("hashchange", look);
    return () => removeEventListener("hashchange", look);
  });
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
