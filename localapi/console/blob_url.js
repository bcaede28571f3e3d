/** The address of a file that is in memory, for players and links. */

import { useEffect, useState } from "./dom.js";

/** Null while there is no file; never that of the file before. */
export function useBlobUrl(file) {
  const [made, setMade] = useState({ file: null, url: null });
  useEffect(() => {
    if (file === null) {
      return undefined;
    }
    const url = URL.createObjectURL(file);
    setMade({ file, url });
    return () => URL.revokeObjectURL(url);
  }, [file]);
  return made.file === file ? made.url : null;
}
