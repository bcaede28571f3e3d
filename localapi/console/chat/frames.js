/** When the page is drawn while answers come: with the browser's frames, and less often where one takes long to draw. */

import { useEffect, useReducer } from "../dom.js";

/** Drawing blocks input. After it, the page stays free for this multiple of the time that drawing took. */
const REST = 2;

/**
 * A function that has the page drawn again at once. `source.onChange` becomes one that has it drawn soon, however often
 * it is called.
 */
export function useFrames(source) {
  const [, show] = useReducer((count) => count + 1, 0);
  useEffect(() => {
    let timer = null;
    let frame = null;
    let drawnAt = 0;
    let rest = 0;
    const draw = () => {
      timer = null;
      const begun = performance.now();
      show();
      setTimeout(() => {
        drawnAt = performance.now();
        rest = REST * (drawnAt - begun);
      });
    };
    source.onChange = () => {
      timer ??= setTimeout(() => (frame = requestAnimationFrame(draw)), drawnAt + rest - performance.now());
    };
    return () => {
      source.onChange = () => {};
      clearTimeout(timer);
      cancelAnimationFrame(frame);
    };
  }, []);
  return show;
}
